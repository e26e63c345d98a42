"""What a sparse layer computes, in one form for its forward pass and its gradients, as the GPU kernels take it.

A correlation gives, for every row r of a sparse matrix and every position (j, i) of an image,

    output[r][j * out_stride + phase][i * out_stride + phase] = bias[r] +
        sum over the columns (channel, tap) of r:  weight * input[channel][j * in_stride + shift(tap)][...]

with zero outside the input. Along one dimension the shift of tap k is (start + phase + k * step) / out_stride, a whole
number for the taps that the phase sees. The forward pass of a convolution is one, and its grad_input another, where the
roles of the channels are exchanged and a stride becomes as many phases; csrc/cpu/correlation.h has the same definition
for the C++ kernels. A linear layer is a convolution of 1 x 1 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lth_sparse.plans.layer_spec import LayerSpec


class Geometry(NamedTuple):
    """Everything about a correlation but its numbers, channels and images. Pairs are (rows, columns).

    Triton's kernels take it for a constant: they are compiled once for each, and divisions become multiplications.
    """

    kernel: tuple[int, int]
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    in_stride: tuple[int, int]
    out_stride: tuple[int, int]
    start: tuple[int, int]
    step: tuple[int, int]
    positions: tuple[int, int]
    """Positions of an image along each dimension, the same in every phase: out_size / out_stride, rounded up."""

    def shifts(self, dimension: int) -> list[int]:
        """How far from its position each tap reads along a dimension, in the one phase that sees the tap."""
        return shifts(self.kernel[dimension], self.start[dimension], self.step[dimension], self.out_stride[dimension])


def shifts(taps: int, start: int, step: int, out_stride: int) -> list[int]:
    """`Geometry.shifts` of a dimension: a position and what it reads count in strides, rounded up to the phase."""
    return [-(-(start + tap * step) // out_stride) for tap in range(taps)]


def of_forward(spec: LayerSpec, x_shape: Sequence[int], output_shape: Sequence[int]) -> Geometry:
    """x -> output, of these shapes."""
    top, left = spec.padding
    out_size = _size(output_shape)
    return Geometry(
        spec.kernel_size, _size(x_shape), out_size, spec.stride, (1, 1), (-top, -left), spec.dilation, out_size
    )


def of_grad_input(spec: LayerSpec, grad_out_shape: Sequence[int], x_shape: Sequence[int]) -> Geometry:
    """grad_out -> grad_input, of these shapes."""
    step_row, step_column = spec.dilation
    height, width = _size(x_shape)
    positions = -(-height // spec.stride[0]), -(-width // spec.stride[1])
    return Geometry(
        spec.kernel_size, _size(grad_out_shape), (height, width), (1, 1), spec.stride, spec.padding,
        (-step_row, -step_column), positions,
    )  # fmt: skip


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return (int(shape[2]), int(shape[3])) if len(shape) == 4 else (1, 1)
