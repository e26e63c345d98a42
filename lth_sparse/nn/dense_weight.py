"""What `layer.weight` gives: a dense copy of the live weights, which refuses to be written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class DenseWeight(Tensor):
    """A tensor made of a layer's values. Computing with it gives plain tensors, and autograd goes through it.

    A write in place would be lost with it, so that one raises RuntimeError: through itself or a view of it, by
    `out=`, or to `.data`; but not in a function that is compiled. Copies, pickles and nn.Parameter(layer.weight)
    are plain.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            # A compiler follows neither names nor addresses.
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if any(isinstance(each, DenseWeight) for each in _written(func.__name__, args, kwargs)):
            name = func.__self__.__name__ if func.__name__ == "__set__" else func.__name__  # type: ignore[attr-defined]
            raise RuntimeError(
                f"weight: got a write in place ({name}) to a copy that layer.weight makes at each access, "
                "expected one to the layer: assign the whole weight (layer.weight = tensor), or write to layer.values"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            # What shares the copy's memory must refuse, too.
            weights = [each for each in args if isinstance(each, DenseWeight)]
            if type(result) in (tuple, list):
                return type(result)(_refusing(each, weights) for each in result)
            return _refusing(result, weights)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.as_subclass(Tensor).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # nn.Parameter marks a subclass so; what it was given here is meant to be trained, and has to be its own.
        self.__class__ = nn.Parameter  # type: ignore[assignment]


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_ASSIGNMENTS = {"__setitem__", "__set__", *(f"__i{operator}__" for operator in _OPERATORS)}


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that the function of this name writes to."""
    name = name.split(".")[0]
    written = [kwargs.get("out")]
    # By PyTorch's own rule for names; nn.Parameter calls requires_grad_, and PyTorch itself refuses the rest of it.
    in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    if in_place or name in _ASSIGNMENTS or kwargs.get("inplace"):
        written.append(args[0] if args else next(iter(kwargs.values()), None))
    return [each for entry in written for each in (entry if isinstance(entry, tuple | list) else [entry])]


def _refusing(result: Any, weights: list[DenseWeight]) -> Any:
    shares_memory: Callable[[Tensor, Tensor], bool] = torch._C._is_alias_of  # type: ignore[attr-defined]
    if type(result) is Tensor and any(shares_memory(result, weight) for weight in weights):
        return result.as_subclass(DenseWeight)
    return result
