"""Initial weights drawn anew, for a network of which nothing is known but its modules."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lth_sparse.lottery.proof import Weights, copy_of
from lth_sparse.system.errors import InputError

METHODS = ("reset_parameters", "_reset_parameters")
"""By which PyTorch's modules draw their own parameters; nn.MultiheadAttention has the second alone."""


def check_can_be_drawn_anew(model: nn.Module) -> None:
    """Raises InputError, naming the module, where one has parameters of its own and no way to draw them."""
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)) and _method(module) is None:
            raise InputError(
                f'controls: "reinit" cannot draw the weights of "{name}", a {type(module).__name__}, anew: expected a '
                "method reset_parameters() there"
            )


def drawn_anew(model: nn.Module, seed: int) -> Weights:
    """The weights and buffers of a copy of `model` after each module has reset its parameters, by this seed.

    A module of your own that draws weights of its layers otherwise has to do so in a `reset_parameters()` of its own;
    modules are reset from the inside out, so that it has the last word.
    """
    scratch = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in reversed(list(scratch.modules())):
            if (reset := _method(module)) is not None:
                getattr(module, reset)()
    return copy_of(scratch)


def _method(module: nn.Module) -> str | None:
    return next((name for name in METHODS if callable(getattr(module, name, None))), None)
