"""An output that is not computed yet, because what the network does to it next is computed together with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from lth_sparse.backends.base import memory_format
from lth_sparse.nn import clamps
from lth_sparse.nn.beginnings import Beginning
from lth_sparse.nn.clamps import RELU, UNBOUNDED, Bounds


class Unfinished:
    """The output of `beginning`, or of a clamp of it, which becomes a tensor as late as it can.

    A tensor-like type in PyTorch's sense (`__torch_function__`): what can be computed together with it is, and whatever
    else is done with it is done with the tensor that it stands for. So nothing depends on how it was found what comes
    next. `adds`, `clamps`, `pools`: whether an addition, ReLU or another clamp, or a max-pool is expected to come.
    """

    __slots__ = (
        "_adds",
        "_beginning",
        "_bounds",
        "_clamps",
        "_grad_enabled",
        "_pools",
        "_residual",
        "_result",
        "_versions",
    )

    def __init__(
        self,
        beginning: Beginning,
        *,
        bounds: Bounds | None = None,
        residual: Tensor | None = None,
        adds: bool = False,
        clamps: bool = False,
        pools: bool = False,
    ) -> None:
        self._beginning, self._bounds, self._residual = beginning, bounds, residual
        self._adds, self._clamps, self._pools = adds, clamps, pools
        self._result: Tensor | None = None
        self._grad_enabled = torch.is_grad_enabled()
        self._versions = self._current_versions()

    def _current_versions(self) -> tuple[int, ...]:
        return tuple(
            0 if t.is_inference() else t._version for t in (self._beginning.x, self._residual) if t is not None
        )

    def _compute(self, pool: bool) -> Tensor:
        if self._versions != self._current_versions():
            raise RuntimeError(
                "an input of a fused layer was changed in place before its output was used: "
                "use the output first, or do not fuse this model"
            )
        with torch.set_grad_enabled(self._grad_enabled):
            return self._beginning.apply(self._residual, self._bounds or UNBOUNDED, pool)

    def finished(self) -> Tensor:
        """The tensor that it stands for, now computed."""
        if self._result is None:
            self._result = self._compute(pool=False)
        return self._result

    def _become(self, other: Unfinished) -> Unfinished:
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))
        return self

    def _clamp(self, bounds: Bounds, inplace: bool) -> Any:
        following = Unfinished(self._beginning, bounds=bounds, residual=self._residual, pools=self._pools)
        waits = self._pools and self._residual is None and bounds == RELU
        return self._then(following, waits, inplace)

    def _can_clamp(self, bounds: Bounds) -> bool:
        return self._result is None and self._bounds is None and self._beginning.clamps(bounds)

    def _then(self, following: Unfinished, waits: bool, inplace: bool) -> Any:
        """What it is followed by; `inplace`: and is from now on."""
        if not waits:
            following.finished()
        if inplace:
            self._become(following)
            following = self
        return following if waits else following._result

    def relu(self) -> Any:
        """As torch.relu."""
        return torch.relu(self)  # type: ignore[arg-type]

    def relu_(self) -> Any:
        """As torch.relu_."""
        return torch.relu_(self)  # type: ignore[arg-type]

    def add(self, other: Any) -> Any:
        """As torch.add."""
        if not self._can_add(other):
            return self.finished() + other
        return self._add(other, inplace=False)

    def _add(self, other: Tensor, inplace: bool) -> Any:
        return self._then(Unfinished(self._beginning, residual=other), self._clamps, inplace)

    def _can_add(self, other: Any) -> bool:
        return (
            self._adds
            and self._result is None
            and type(other) is Tensor
            and other.dtype == torch.float32
            and other.shape == self._beginning.x.shape
            and other.device == self._beginning.x.device
            and other.is_contiguous(memory_format=memory_format(self._beginning.x))
        )

    def __add__(self, other: Any) -> Any:
        return self.add(other.finished() if isinstance(other, Unfinished) else other)

    def __radd__(self, other: Any) -> Any:
        return self.add(other)

    def __iadd__(self, other: Any) -> Any:
        other = other.finished() if isinstance(other, Unfinished) else other
        if not self._can_add(other):
            return self.finished().add_(other)
        return self._add(other, inplace=True)

    def max_pool(self) -> Tensor:
        """The 2x2 max-pool of stride 2."""
        if self._result is None and self._bounds == RELU and self._residual is None and self._beginning.pools():
            return self._compute(pool=True)
        return F.max_pool2d(self.finished(), 2)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first, *others = args or (None,)
        if isinstance(first, Unfinished):
            clamp = clamps.of_call(func, *others, **kwargs)
            if clamp is not None and first._can_clamp(clamp[0]):
                return first._clamp(*clamp)
            if func in _ADDITIONS and len(others) == 1 and not kwargs:
                return first + others[0]
            if func in (torch.max_pool2d, F.max_pool2d) and is_two_by_two(*others, **kwargs):
                return first.max_pool()
        elif func in _ADDITIONS and len(others) == 1 and not kwargs:
            return others[0] + first
        return func(*tree_map(_finished, args), **tree_map(_finished, kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finished(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Unfinished.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self.finished(), name, value)


def is_two_by_two(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> bool:
    """Whether a max-pool with these arguments is that of the fused operators."""
    pairs = [
        (each, each) if isinstance(each, int) else tuple(each)
        for each in (kernel_size, stride or kernel_size, padding, dilation)
    ]
    return pairs == [(2, 2), (2, 2), (0, 0), (1, 1)] and not ceil_mode and not return_indices


_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)


def _finished(value: Any) -> Any:
    return value.finished() if type(value) is Unfinished else value


def _forwarded(name: str) -> Callable[..., Any]:
    """Python looks for these on the type, past __getattr__."""
    return lambda self, *args, **kwargs: getattr(self.finished(), name)(*map(_finished, args), **kwargs)


_OF_OBJECTS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__", "__format__", "__reduce_ex__"}
for _name in {each for each in dir(Tensor) if each not in dir(Unfinished)} | _OF_OBJECTS:
    if _name.startswith("__") and callable(getattr(Tensor, _name)):
        setattr(Unfinished, _name, _forwarded(_name))
