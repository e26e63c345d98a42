"""A followed network as it was made for each size of input."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, fx, nn

from lth_sparse.inference import engine
from lth_sparse.inference.segments import in_segments, is_pruned
from lth_sparse.nn.fused_operators import is_unwatched
from lth_sparse.nn.watched import hooked
from lth_sparse.system.messages import say


class BySizes:
    """What was made of one network in the engine; a copy, or what is unpickled, has nothing yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[Any, ...], fx.GraphModule | None] = {}
        self._has_parts: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return BySizes, ()

    def network_for(self, network: nn.Module, inputs: tuple[Any, ...]) -> nn.Module:
        """`network` with its convolutions in the engine, for images of these sizes; itself where it has no part."""
        if self._has_parts is None:
            self._has_parts = isinstance(network, fx.GraphModule) and any(map(is_pruned, network.modules()))
        if not self._has_parts or not inputs or not all(map(_is_images, inputs)):
            return network
        assert isinstance(network, fx.GraphModule)
        sizes = tuple(tuple(each.shape[1:]) for each in inputs)
        if sizes not in self._made:
            with self._lock:
                if sizes not in self._made:
                    self._made[sizes] = self._new(network, inputs)
        return self._made[sizes] or network

    def _new(self, network: fx.GraphModule, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
        if any(hooked(module) for module in network.modules()):
            return None  # Shapes are found out by a run that hooks would see.
        if reason := engine.refuses():
            if not self._made:
                say(f"lth.for_inference: layer by layer: {reason}")
            return None
        if self._made:
            say(f"lth.for_inference: made again, for {' and '.join('x'.join(map(str, each.shape)) for each in inputs)}")
        return in_segments(network, inputs)


def _is_images(given: Any) -> bool:
    """Whether the engine takes it: a batch of images, and nobody else stands in for what is done with it."""
    return isinstance(given, Tensor) and given.dim() == 4 and not torch.compiler.is_compiling() and is_unwatched(given)
