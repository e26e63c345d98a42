"""One layer as plans, backends and kernels see it: everything but its mask and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

Kind = Literal["conv2d", "linear"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class LayerSpec:
    """One layer as a backend sees it: everything but the mask and the numbers. A key for caches, too.

    `padding` is the zero padding (rows, columns) on both sides that the operator does itself. What zero
    padding of two equal sides cannot express (other padding modes, 'same' with an even kernel) has been done
    to the input already. A linear layer has features for channels, and leaves the rest at its default.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The dense weight's: [out, in / groups, kernel_height, kernel_width], or [out, in] if linear."""
        if self.kind == "linear":
            return (self.out_channels, self.in_channels)
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def taps(self) -> int:
        """Entries of the kernel: kernel_height * kernel_width."""
        return self.kernel_size[0] * self.kernel_size[1]

    def to_ints(self) -> tuple[int, ...]:
        """The spec as the integers that an operator's schema can carry; `from_ints` is the way back."""
        return (
            _KINDS.index(self.kind),
            self.in_channels,
            self.out_channels,
            *self.kernel_size,
            *self.stride,
            *self.padding,
            *self.dilation,
            self.groups,
        )

    @classmethod
    @cache
    def from_ints(cls, ints: tuple[int, ...]) -> LayerSpec:
        """The spec whose `to_ints()` these are: always the same object, for this runs at every operator call."""
        kind, in_channels, out_channels, *sizes, groups = ints
        kernel_size, stride, padding, dilation = zip(sizes[::2], sizes[1::2], strict=True)
        return cls(_KINDS[kind], in_channels, out_channels, kernel_size, stride, padding, dilation, groups)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The convolution's output height and width; below 1 when the kernel is larger than its input."""
        sizes = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                (height, width), self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        return sizes[0], sizes[1]
