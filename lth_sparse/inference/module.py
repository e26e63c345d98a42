"""for_inference: a model becomes a module for inference alone."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from typing_extensions import Self

from lth_sparse.inference.by_sizes import BySizes
from lth_sparse.inference.rewriting import Remarks, for_running, graphs_of_parts
from lth_sparse.nn import forms
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
"""By how much of the largest output those of an example may differ, through a whole network."""
_ROUNDING_OF_HALVES = 0.03


class InferenceModule(nn.Module):
    """What `for_inference` returns: the model's outputs, without gradients, by a copy of its weights."""

    def __init__(self, model: nn.Module, strict: bool) -> None:
        super().__init__()
        # The model belongs to the caller, and its memory should be free when he lets it go.
        self._model: weakref.ref[nn.Module] | None = weakref.ref(model)
        self._strict = strict
        self.refresh()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for these arguments."""
        with torch.no_grad():
            network = self.network if kwargs else self.network_for(*args)
            # A followed network's own __call__ words its errors, which takes microseconds.
            return nn.Module.__call__(network, *args, **kwargs)

    def network_for(self, *args: Any) -> nn.Module:
        """What computes inputs of the sizes of these: `network`, or that with parts of it in the engine."""
        return self._by_sizes.network_for(self.network, args)

    def refresh(self) -> None:
        """Take over the weights, masks and statistics that the model has now. It must still be there, in eval mode."""
        model = self._model() if self._model else None
        if model is None:
            raise RuntimeError(
                "refresh: the model that this was made of is gone, or stayed behind when this was pickled: "
                "call lth_sparse.for_inference again"
            )
        remarks = Remarks()
        self.network = _made_of(model, self._strict, remarks)
        self._by_sizes = BySizes()
        for remark in dict.fromkeys(remarks.said):
            say(f"lth.for_inference: {remark}")

    def train(self, mode: bool = True) -> Self:
        """Eval mode is the only one."""
        if mode:
            raise RuntimeError(
                "a module of lth_sparse.for_inference cannot be trained: train the model, then refresh()"
            )
        return super().train(False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        result = type(self).__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return result

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._by_sizes = BySizes()
        for graph in graphs_of_parts(self.network):
            graph._apply(fn)
        return self


def for_inference(
    model: nn.Module, example: Tensor | tuple[Any, ...] | None = None, *, strict: bool = True
) -> InferenceModule:
    """A module for inference with the outputs of `model`, to rounding; `model` itself stays as it is.

    BatchNorm2d is folded into the convolutions before it, sparse or dense, BatchNorm1d into linear layers, and ReLU
    goes into the store of the sparse C++ kernels, or into a 2x2 max-pool after it. `model`: in eval mode; dense,
    sparse, fused by `lth_sparse.fuse`, pruned by torch.nn.utils.prune, maybe inside DataParallel,
    DistributedDataParallel or torch.compile. It is followed with torch.fx: what its forward does beside computing, such
    as counting or printing, is not done.

    The module holds copies: `refresh()` takes over weights that have changed since. It asks for no gradients, stays in
    eval mode, and can be copied and pickled. A module with hooks is not folded; a line on standard error names it.

    example: an input, or a tuple of inputs, on which both are run once and compared.
    strict: False leaves what cannot be followed as it is, named on standard error, and follows its parts.

    Raises InputError for a model in training mode, for one that cannot be followed (`strict`), and when the outputs
    for `example` differ by more than rounding.
    """
    forms.unwrap(model)  # Which refuses what is no model.
    result = InferenceModule(model, strict)
    if example is not None:
        _compare(model, result, example if isinstance(example, tuple) else (example,))
    return result


def _made_of(model: nn.Module, strict: bool, remarks: Remarks) -> nn.Module:
    network, _ = forms.unwrap(model)
    for name, module in network.named_modules():
        if module.training:
            raise InputError(
                f"model: got {f'its part {name!r}' if name else 'one'} in training mode, expected eval mode: "
                "call model.eval() first"
            )
    result = for_running(network, remarks)
    if remarks.unfollowed and strict:
        raise InputError(f"{remarks.unfollowed}; strict=False leaves it as it is, and follows its parts")
    return result.eval()


def relative_error(given: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest of `expected`, not empty; infinite or NaN where one is not finite."""
    largest = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    return float((given - expected).abs().max()) / largest


def _compare(model: nn.Module, result: nn.Module, example: tuple[Any, ...]) -> None:
    with torch.no_grad():
        expected, given = tree_leaves(model(*example)), tree_leaves(result(*example))
    for ours, theirs in zip(given, expected, strict=True):
        if not isinstance(theirs, Tensor) or not theirs.is_floating_point() or theirs.numel() == 0:
            continue
        error = relative_error(ours, theirs)
        allowed = ROUNDING.get(theirs.dtype, _ROUNDING_OF_HALVES)
        if not error <= allowed:
            raise InputError(
                f"example: the outputs differ by {error:.1e} of the largest, expected at most {allowed:.0e}: "
                "what the model computes may depend on more than its inputs; use it as it is"
            )
