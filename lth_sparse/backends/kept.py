"""The dense weight that a forward pass was computed with, kept for the gradient of its input.

Where masked dense PyTorch is the faster one, making the weight of the values is what a sparse layer costs on top of it;
so it is made once a step. autograd holds it (`lth_sparse.ops`), as it does other tensors that a gradient needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Kept:
    """What one call of a layer's forward pass leaves; None when it made no dense weight."""

    weight: Tensor | None = None


_OF_THIS_CALL: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def keeping(kept: Kept | None) -> Iterator[None]:
    """Inside, a backend finds the call's `kept`, to be filled by the forward pass; None keeps nothing."""
    token = _OF_THIS_CALL.set(kept)
    try:
        yield
    finally:
        _OF_THIS_CALL.reset(token)


def of_this_call() -> Kept | None:
    """What `keeping` was given."""
    return _OF_THIS_CALL.get()
