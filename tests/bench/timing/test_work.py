"""What a layer has to do at least."""

from __future__ import annotations

import pytest
import torch

from bench.timing.work import of_layer
from lth_sparse.plans.layer_spec import LayerSpec


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (LayerSpec("conv2d", 4, 6, (3, 2), (2, 1), (1, 1), (1, 2), 2), (3, 4, 5, 6)),
        (LayerSpec("linear", 5, 7), (3, 5)),
    ],
    ids=["conv2d", "linear"],
)
def test_work_is_the_products_of_live_weights_and_real_pixels(spec: LayerSpec, shape: tuple[int, ...]) -> None:
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.4
    count = 0
    if spec.kind == "linear":
        count = shape[0] * int(mask.sum())
    else:
        height, width = spec.output_size(*shape[2:])
        for _, _, tap_row, tap_column in mask.nonzero().tolist():
            for y in range(height):
                for x in range(width):
                    row = y * spec.stride[0] + tap_row * spec.dilation[0] - spec.padding[0]
                    column = x * spec.stride[1] + tap_column * spec.dilation[1] - spec.padding[1]
                    count += shape[0] * (0 <= row < shape[2] and 0 <= column < shape[3])
    works = of_layer(spec, mask, shape)
    assert [work.operations for work in works.values()] == [2 * count] * 3
    size = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else ()
    output = torch.Size((shape[0], spec.out_channels, *size)).numel()
    assert works["forward"].moved == 4 * (torch.Size(shape).numel() + output + int(mask.sum()))
