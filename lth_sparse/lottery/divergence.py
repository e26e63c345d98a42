"""Losses, gradients and weights that are no finite numbers any more, and the layer where that began."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.system.errors import InputError


class Diverged(InputError):
    """A training whose loss, gradients or weights are NaN or infinite."""


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of all of these are."""
    return all(bool(torch.isfinite(each).all()) for each in tensors)


def state_is_finite(model: nn.Module) -> bool:
    """Whether all weights of `model` are, and what its BatchNorms have counted."""
    return finite(value for value in model.state_dict().values() if isinstance(value, Tensor))


def check_loss(loss: Tensor, model: nn.Module, images: Tensor) -> None:
    """Raises Diverged where `loss`, that of `model` on `images`, is not finite: it names the first layer that is to
    blame, by a second forward pass, which layers that a hook watches compute one by one."""
    if finite([loss]):
        return
    if not finite([images]):
        raise Diverged(f"the loss is {loss.item()}, for the images of this batch are not finite")
    raise Diverged(f"the loss is {loss.item()}; {_first_output(model, images)}")


def _first_output(model: nn.Module, images: Tensor) -> str:
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        if not found and not finite(each for each in outputs if isinstance(each, Tensor)):
            weights = "" if finite(module.parameters()) else ", whose weights are not finite either"
            found.append(f"the first layer with an output that is not finite is {_called(name, module)}{weights}")

    handles = [
        module.register_forward_hook(lambda module, given, output, name=name: look(name, module, output))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the outputs of all layers are finite, it is the loss that overflows"


def check_gradients(model: nn.Module) -> None:
    """Raises Diverged where the gradient of a parameter is not finite: it names the layer that is nearest to the output
    of the network, where that began, and the first one, which it has reached."""
    wrong = [
        _called(name, module)
        for name, module in model.named_modules()
        if any(each.grad is not None and not finite([each.grad]) for each in module.parameters(recurse=False))
    ]
    if wrong:
        reached = f"; backwards it has reached {wrong[0]}" if len(wrong) > 1 else ""
        raise Diverged(
            "the loss is finite and gradients are not; the first layer with one that is not, from the loss on, is "
            f"{wrong[-1]}{reached}"
        )


def check_weights(model: nn.Module) -> None:
    """Raises Diverged where a parameter is not finite after a step: it names the first layer with one."""
    for name, module in model.named_modules():
        if not finite(module.parameters(recurse=False)):
            raise Diverged(
                f"loss and gradients are finite and the step of the optimizer makes weights that are not; the first "
                f"layer with some is {_called(name, module)}"
            )


def _called(name: str, module: nn.Module) -> str:
    return f"{name or 'the network itself'} ({type(module).__name__})"
