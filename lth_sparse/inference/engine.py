"""A network of convolutions as csrc/cpu/inference runs it: described operation by operation, then made ready."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators
from lth_sparse.nn.clamps import UNBOUNDED, Bounds

Shape = tuple[int, int, int]
"""Channels, height and width."""


class Kind(IntEnum):
    """The operations, as csrc/cpu/inference/description.h numbers them."""

    INPUT = 0
    OUTPUT = 1
    CONVOLUTION = 2
    MAX_POOL = 3
    AVERAGE_POOL = 4
    GLOBAL_AVERAGE = 5
    ADD = 6
    CLAMP = 7
    CONCATENATE = 8


@dataclass
class Program:
    """The description, as it grows; values are numbers."""

    shapes: list[Shape] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of the operations."""
    flops: dict[str, int] = field(default_factory=dict)
    """Floating-point operations of an image, two for each live weight and pixel, where an operation has weights."""
    _operations: list[list[int]] = field(default_factory=list)
    _bounds: list[float] = field(default_factory=list)
    _weights: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    _inputs: int = 0

    def input(self, name: str, shape: Shape) -> int:
        """The next of the inputs."""
        self._inputs += 1
        return self._add(name, Kind.INPUT, shape, [])

    def output(self, value: int) -> None:
        """`value` is the next of the outputs."""
        self._operations.append([Kind.OUTPUT, value])
        self._bounds += (-math.inf, math.inf)
        self.names.append("output")

    def convolution(
        self,
        name: str,
        value: int,
        weight: Tensor,
        bias: Tensor | None,
        window: Sequence[int],
        shape: Shape,
        added: int | None = None,
        bounds: Bounds = UNBOUNDED,
    ) -> int:
        """weight [out_channels, in_channels / groups, height, width], of which what is 0 costs nothing. window: the 11
        numbers of a layer. added: a value of the result's shape."""
        rows = weight.detach().float().flatten(1).contiguous()
        live = rows != 0
        row_offsets = torch.zeros(len(rows) + 1, dtype=torch.int32)
        row_offsets[1:] = live.sum(1).cumsum(0)
        columns = live.nonzero()[:, 1].int()
        self.flops[name] = 2 * int(row_offsets[-1]) * shape[1] * shape[2]
        shift = torch.zeros(len(rows)) if bias is None else bias.detach().float().contiguous()
        self._weights.append((row_offsets, columns, rows[live], shift))
        return self._add(name, Kind.CONVOLUTION, shape, [value, -1 if added is None else added, *window], bounds)

    def pool(self, name: str, kind: Kind, value: int, window: Sequence[int], shape: Shape) -> int:
        """MAX_POOL, or AVERAGE_POOL with zeros counted."""
        return self._add(name, kind, shape, [value, *window])

    def global_average(self, name: str, value: int) -> int:
        """Over all pixels."""
        return self._add(name, Kind.GLOBAL_AVERAGE, (self.shapes[value][0], 1, 1), [value])

    def add(self, name: str, a: int, b: int, bounds: Bounds = UNBOUNDED) -> int:
        """a + b, clamped."""
        return self._add(name, Kind.ADD, self.shapes[a], [a, b], bounds)

    def clamp(self, name: str, value: int, bounds: Bounds) -> int:
        """A value put between bounds."""
        return self._add(name, Kind.CLAMP, self.shapes[value], [value], bounds)

    def concatenate(self, name: str, values: Sequence[int]) -> int:
        """Along the channels."""
        _, height, width = self.shapes[values[0]]
        shape = (sum(self.shapes[value][0] for value in values), height, width)
        return self._add(name, Kind.CONCATENATE, shape, [len(values), *values])

    def _add(self, name: str, kind: Kind, shape: Shape, arguments: list[int], bounds: Bounds = UNBOUNDED) -> int:
        least, greatest = bounds
        self._operations.append([kind, len(self.shapes), *arguments])
        self._bounds += (-math.inf if least is None else least, math.inf if greatest is None else greatest)
        self.names.append(name)
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def made(self) -> Engine:
        """The network, ready to run."""
        numbers = [len(self.shapes), *(size for shape in self.shapes for size in shape), len(self._operations)]
        numbers += [number for operation in self._operations for number in operation]
        kinds = (torch.int32, torch.int32, torch.float32, torch.float32)
        parts = [
            torch.cat([each[k] for each in self._weights]) if self._weights else torch.empty(0, dtype=kinds[k])
            for k in range(4)
        ]
        return Engine(torch.ops.lth_sparse_cpu.inference_network(numbers, self._bounds, *parts), self.names, self.flops)


class Engine:
    """A network in the library's memory, which is given back with this object."""

    def __init__(self, number: int, names: Sequence[str], flops: Mapping[str, int]) -> None:
        self._number = number
        self.names = list(names)
        self.flops = dict(flops)
        weakref.finalize(self, torch.ops.lth_sparse_cpu.inference_release, number)

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        """Tensors [N, C, H, W], float32 on the CPU, to such tensors. Several threads may call it."""
        return torch.ops.lth_sparse_cpu.inference_run(self._number, [each.contiguous() for each in inputs])

    def times(self, inputs: list[Tensor]) -> dict[str, float]:
        """Seconds of each operation, in one run."""
        found = torch.ops.lth_sparse_cpu.inference_times(self._number, [each.contiguous() for each in inputs])
        return dict(zip(self.names, found, strict=True))

    def bytes(self, of_images: bool) -> int:
        """What the values of a run take: of a group of images, or of single ones."""
        return torch.ops.lth_sparse_cpu.inference_bytes(self._number, of_images)


def refuses() -> str:
    """Why no network can be made here, "" where one can."""
    return cpu_operators.UNUSABLE
