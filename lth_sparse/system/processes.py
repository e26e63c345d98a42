"""The processes that train one network together. Where this one is alone, everything here does nothing.

All of them do the same in the same order, each on its part of a batch; what only one may do, or what would come out
differently in each, the first one does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from lth_sparse.system.errors import GO_ON, ProcessesError

_Given = TypeVar("_Given")
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class Together:
    """This process is number `rank`, from 0, of `count`."""

    rank: int = 0
    count: int = 1


_now = Together()


@contextmanager
def being(together: Together) -> Iterator[None]:
    """Inside, this process is that one; of more than one, the default group of torch.distributed has to be theirs."""
    global _now
    before, _now = _now, together
    try:
        yield
    finally:
        _now = before


def count() -> int:
    """How many there are."""
    return _now.count


def is_first() -> bool:
    """Whether this one writes, and speaks."""
    return _now.rank == 0


def own_seed() -> tuple[int, ...]:
    """What `seeding.derive` is given beside the rest for a stream that is drawn by each process: nothing in the first
    one, which draws as one that is alone."""
    return (_now.rank,) if _now.rank else ()


def part(size: int) -> slice:
    """Which of `size` images in a row are this process's. Parts differ by at most one image."""
    return slice(size * _now.rank // _now.count, size * (_now.rank + 1) // _now.count)


def share(size: int) -> float:
    """What a mean over this process's part of `size` images counts in an average over processes: the mean over all of
    them is the average of these means, each times its share."""
    own = part(size)
    return (own.stop - own.start) * _now.count / size


def summed(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, which may take its place."""
    if _now.count == 1:
        return tensor
    total = tensor.contiguous()
    distributed.all_reduce(total)
    return total


def averaged(tensor: Tensor) -> Tensor:
    """The average of `tensor` over all processes, which may take its place."""
    return tensor if _now.count == 1 else summed(tensor).div_(_now.count)


def take_over(tensors: Sequence[Tensor]) -> None:
    """Puts the first process's numbers into these tensors, one message for each dtype."""
    if _now.count == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in same])
        distributed.broadcast(flat, 0)
        with torch.no_grad():
            for tensor, numbers in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(numbers.view(tensor.shape))


def first(function: Callable[[], _Given]) -> _Given:
    """What `function` gives in the first process, which alone calls it, as if there were no other; in all of them.

    Tensors, by themselves or in dicts, lists and tuples, lie on the device of each.
    """
    if _now.count == 1:
        return function()
    sent: list[Any] = [None]
    if _now.rank == 0:
        with being(Together()):
            given = function()
        sent = [_changed(given, _to_travel)]
    distributed.broadcast_object_list(sent, 0)
    if _now.rank == 0:
        return given
    received: _Given = _changed(sent[0], _arrived)
    return received


@dataclass(frozen=True)
class _OfGPU:
    """A tensor that lay on a GPU, on the way between two that have other numbers."""

    tensor: Tensor


def _to_travel(value: Any) -> Any:
    return _OfGPU(value.cpu()) if isinstance(value, Tensor) and value.is_cuda else value


def _arrived(value: Any) -> Any:
    return value.tensor.cuda() if isinstance(value, _OfGPU) else value


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value`, or everything in it where it is a dict, a list or a tuple, changed."""
    if type(value) is dict:
        return {name: _changed(each, change) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_changed(each, change) for each in value)
    return change(value)


def by_first(function: Callable[_Arguments, _Given]) -> Callable[_Arguments, _Given]:
    """A function that gives in all processes what `function` gives in the first, which alone calls it: see `first`."""

    @functools.wraps(function)
    def called(*arguments: _Arguments.args, **others: _Arguments.kwargs) -> _Given:
        return first(lambda: function(*arguments, **others))

    return called


def only_first(function: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A function that does in the first process what `function` does, as if there were no other, and elsewhere nothing.
    Nobody waits for it."""

    @functools.wraps(function)
    def called(*arguments: _Arguments.args, **others: _Arguments.kwargs) -> None:
        if is_first():
            with being(Together()):
                function(*arguments, **others)

    return called


def refuse_different(what: str, digest: str) -> None:
    """Raises ProcessesError, in all of them, where `digest`, of what is called `what`, is not the same in all."""
    if _now.count == 1:
        return
    digests = [""] * _now.count
    distributed.all_gather_object(digests, digest)
    if others := [str(rank) for rank, each in enumerate(digests) if each != digests[0]]:
        raise ProcessesError(
            f"{what} are not the same in all {_now.count} processes: those of process {', '.join(others)} differ from "
            f"those of process 0 (SHA-256 {digests[int(others[0])][:12]}..., {digests[0][:12]}...); {GO_ON}"
        )
