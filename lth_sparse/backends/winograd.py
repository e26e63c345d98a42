"""Winograd's algorithm on the CPU: how far it may be used, which layers it computes, and where it is worth it.

It computes 3 x 3 convolutions of stride 1 with a quarter of the products (tiles of 4 x 4 outputs) or less than half
(2 x 2), whatever is pruned; csrc/cpu/winograd/kernels.h describes it. Its results are float32 with an error of their
own, `ERROR`, which is larger than rounding: that is what the setting limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from lth_sparse.backends import autograd_library
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

SETTINGS = ("off", "2x2", "4x4")
VARIABLE = "LTH_SPARSE_WINOGRAD"
ERROR = {"2x2": 1e-6, "4x4": 4e-6}
"""The largest error against float64 over the largest result, by the largest tile allowed. PyTorch's is 2e-7
to 4e-6 (bench/results)."""
_TILES = {"off": (2,), "2x2": (2,), "4x4": (2, 4)}
"""With "off", of an operation that was decided on before another thread switched the algorithm off."""
_PRICE = {"forward": 0.62, "grad_input": 0.6, "grad_weight": 0.48}
"""Of a product, where a live weight's costs 1."""
_VECTOR = 16
"""Channels that a vector of the kernels has room for, at most."""

_setting: str | None = None


def set_winograd(largest: str) -> None:
    """Sets the largest tile of outputs that Winograd's algorithm may use in this process: "off", "2x2" or "4x4".

    The default is what the environment variable LTH_SPARSE_WINOGRAD says, or "4x4". Raises InputError, a ValueError,
    for another value.
    """
    global _setting
    _setting = _checked(largest, "winograd")
    autograd_library.forget()


def setting() -> str:
    """The largest tile allowed: one of `SETTINGS`. Raises InputError when the environment variable is none of them."""
    global _setting
    if _setting is None:
        _setting = _checked(os.environ.get(VARIABLE) or SETTINGS[-1], VARIABLE)
    return _setting


@contextmanager
def limited(largest: str) -> Iterator[None]:
    """Inside, the setting is `largest`. Raises InputError as `set_winograd` does."""
    global _setting
    before = _setting
    set_winograd(largest)
    try:
        yield
    finally:
        _setting = before
        autograd_library.forget()


def _checked(value: str, name: str) -> str:
    if value not in SETTINGS:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(SETTINGS)}{nearest(str(value), SETTINGS)}")
    return value


def computes(spec: LayerSpec) -> bool:
    """Whether the algorithm computes such a layer, in float32 on the CPU."""
    return (
        spec.kind == "conv2d"
        and spec.kernel_size == (3, 3)
        and spec.stride == spec.dilation == (1, 1)
        and spec.groups == 1
        and max(spec.padding) <= 2
    )


def tile(spec: LayerSpec, input_shape: Sequence[int]) -> int:
    """Outputs along the side of a tile, of those allowed: with the fewest products for an input [N, C, H, W]."""
    return _tile(setting(), spec, tuple(input_shape[2:]))


@lru_cache(maxsize=4096)
def _tile(largest: str, spec: LayerSpec, input_size: tuple[int, ...]) -> int:
    return min(_TILES[largest], key=lambda size: (_products(size, spec, input_size), size))


def _products(size: int, spec: LayerSpec, input_size: tuple[int, ...]) -> float:
    """For each output and pair of channels; 9 by the convolution itself. Tiles reach over the edge of an image."""
    height, width = spec.output_size(*input_size)
    tiles = -(-height // size) * -(-width // size)
    return tiles * (size + 2) ** 2 / (height * width)


def worth_it(operation: str, spec: LayerSpec, density: float, input_shape: Sequence[int]) -> bool:
    """Whether an operation of a layer is faster so than by the sparse kernels, for an input [N, C, H, W].

    `operation`: "forward", "grad_input" or "grad_weight". A rule from measurements, between those of two processors:
    Winograd's products over those of the live weights, a product's price over that of a live weight, and what the
    transforms cost, of pixels as much as 8 channels on either side, of weights as much as 12 tiles.
    """
    if setting() == "off" or not computes(spec) or not input_shape[0]:
        return False
    return density > _threshold(setting(), operation, spec, tuple(input_shape))


@lru_cache(maxsize=4096)
def _threshold(largest: str, operation: str, spec: LayerSpec, input_shape: tuple[int, ...]) -> float:
    size, output_size = _tile(largest, spec, input_shape[2:]), spec.output_size(*input_shape[2:])
    tiles = input_shape[0] * -(-output_size[0] // size) * -(-output_size[1] // size)
    threshold = _PRICE[operation] * _products(size, spec, input_shape[2:]) / 9 * (1 + 12 / tiles)
    for channels in (spec.in_channels, spec.out_channels):
        threshold *= (1 + 8 / channels) * (-(-channels // _VECTOR) * _VECTOR / channels)
    for pixels in output_size:
        if pixels <= 4:  # There the sparse kernels leave the padding out.
            threshold *= 3 * pixels / max(1, 3 * pixels - 2)
    return threshold
