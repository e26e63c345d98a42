"""What `layer.weight` gives: a dense copy of the live weights, which refuses to be written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class DenseWeight(Tensor):
    """A tensor made of a layer's values. Computing with it gives plain tensors, and autograd goes through it.

    A write in place would be lost with it, so that one raises RuntimeError: through itself or a view of it, by
    `out=`, or to `.data`; but not in a function that is compiled. So do gradient hooks, attributes and
    `requires_grad_` of what the layer gives. Copies, pickles and nn.Parameter(layer.weight) are plain.
    """

    _gradient: Callable[[], Tensor | None] | None = None

    @classmethod
    def of_layer(cls, weight: Tensor, gradient: Callable[[], Tensor | None]) -> DenseWeight:
        """`weight`, a copy, as what the layer gives; `gradient`: one of the gradient, for `.grad`."""
        given = weight.as_subclass(cls)
        if not torch.compiler.is_compiling():
            given._gradient = gradient
        return given

    def __setattr__(self, name: str, value: Any) -> None:
        # PyTorch's own properties say themselves what becomes of them.
        if self._gradient is not None and not hasattr(Tensor, name) and not name.startswith("_dynamo"):
            raise RuntimeError(_lost(f"the attribute {name}"))
        super().__setattr__(name, value)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            # A compiler follows neither names nor addresses.
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args else None
        if isinstance(first, DenseWeight) and first._gradient is not None:
            if func.__name__ in _OF_THE_PARAMETER:
                raise RuntimeError(_lost(func.__name__))
            if func == _GRAD and not first.retains_grad:
                gradient = first._gradient()
                return None if gradient is None else gradient.as_subclass(DenseWeight)
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


_GRAD = vars(torch._C.TensorBase)["grad"].__get__
_OF_THE_PARAMETER = {"register_hook", "register_post_accumulate_grad_hook", "requires_grad_"}


def _lost(what: str) -> str:
    return (
        f"weight: got {what}, given to a copy that layer.weight makes at each access, "
        "expected the layer's parameter: layer.values"
    )


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
