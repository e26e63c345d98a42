"""The C++ kernels: every way in which they cut a layer up, on every instruction set that this machine runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)

DTYPES = {
    # A sum of K products errs by about sqrt(K) roundings; the longest here has some 3000.
    torch.float32: 2e-5,
    torch.float64: 1e-13,
    # Sums in float32, rounded once.
    torch.bfloat16: 2e-5 + torch.finfo(torch.bfloat16).eps / 2,
    torch.float16: 2e-5 + torch.finfo(torch.float16).eps / 2,
}
"""With the largest error, over the largest number there is."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def conv2d(in_channels, out_channels, size=3, **rest):
    kernel = (size, size)
    return LayerSpec("conv2d", in_channels, out_channels, kernel, **{"padding": (size // 2, size // 2)} | rest)


# Each line reaches another tile, lane or block: see csrc/cpu/blocking.cpp.
SHAPES = {
    "tiles of 4 x 4": (conv2d(5, 7), (16, 5, 12, 12)),
    "tiles of 2 x 8": (conv2d(5, 7), (16, 5, 10, 8)),
    "tiles of 1 x 16": (conv2d(5, 7), (16, 5, 5, 16)),
    "ragged tiles": (conv2d(5, 7), (16, 5, 7, 13)),
    "tiles of 2 x 7, the last one of 1": (conv2d(5, 7), (16, 5, 7, 7)),
    "tiles of 2 x 7, planes apart by a vector more": (conv2d(40, 260), (16, 40, 14, 14)),
    "tiles of 4 x 4, the last one of 3, in strips": (conv2d(5, 130), (16, 5, 15, 28)),
    "tiles of 4 x 4, the last one of 2": (conv2d(5, 7), (16, 5, 14, 13)),
    "tiles of 2 x 7, stride": (conv2d(5, 7, stride=(2, 2)), (16, 5, 14, 14)),
    "several strips": (conv2d(3, 70), (16, 3, 30, 33)),
    "whole rows in strips": (conv2d(3, 300), (16, 3, 8, 8)),
    "whole rows in strips, the last one shorter": (conv2d(3, 300), (16, 3, 6, 8)),
    "whole rows, fewer images than lanes": (conv2d(5, 7), (31, 5, 8, 8)),
    "several blocks of channels": (conv2d(300, 8), (16, 300, 16, 16)),
    "padding left out of 4 x 4 images": (conv2d(80, 40), (33, 80, 4, 4)),
    "padding left out of 2 x 2 images": (conv2d(80, 40), (70, 80, 2, 2)),
    "padding left out, several blocks of channels": (conv2d(300, 8), (16, 300, 4, 4)),
    "padding left out, stride from 8 x 8 to 4 x 4": (conv2d(80, 40, 5, stride=(2, 2)), (33, 80, 8, 8)),
    "padding left out, stride from 4 x 4 to 2 x 2": (conv2d(80, 40, stride=(2, 2)), (70, 80, 4, 4)),
    "padding left out of 3 x 3 images": (conv2d(9, 11), (17, 9, 3, 3)),
    "padding wider than the image": (conv2d(9, 11, 5), (17, 9, 2, 3)),
    "images of one pixel": (conv2d(9, 11), (200, 9, 1, 1)),
    "half as many lanes": (conv2d(5, 7), (24, 5, 6, 6)),
    "lanes of pixels": (conv2d(5, 7), (1, 5, 19, 21)),
    "lanes of pixels, stride": (conv2d(5, 7, stride=(2, 3)), (2, 5, 19, 21)),
    "lanes of pixels, small images": (conv2d(50, 70), (3, 50, 4, 4)),
    "lanes of pixels, 3 vectors of 16 or 5 of 8": (conv2d(50, 70), (2, 50, 5, 6)),
    "lanes of pixels, 6 vectors of 8": (conv2d(50, 70), (2, 50, 6, 6)),
    "lanes of pixels, 7 vectors of 8": (conv2d(50, 70), (2, 50, 5, 9)),
    "lanes of pixels, 5 vectors of 16": (conv2d(5, 7), (2, 5, 8, 8)),
    "lanes of pixels, 6 vectors of 16": (conv2d(5, 7), (2, 5, 9, 8)),
    "lanes of pixels, 7 vectors of 16": (conv2d(5, 7), (2, 5, 10, 8)),
    "stride": (conv2d(5, 7, stride=(2, 2)), (16, 5, 16, 16)),
    "stride beyond the kernel": (conv2d(5, 7, 1, stride=(3, 2)), (16, 5, 11, 11)),
    "dilation": (conv2d(5, 7, dilation=(2, 3)), (16, 5, 11, 11)),
    "groups": (conv2d(12, 8, groups=4), (16, 12, 9, 9)),
    "depthwise": (conv2d(20, 20, groups=20), (16, 20, 9, 9)),
    "in place": (conv2d(20, 30, 1), (4, 20, 8, 8)),
    "1 x 1 with odd images": (conv2d(20, 30, 1), (17, 20, 5, 3)),
    "panels of pixels, all of a size": (conv2d(20, 30, 1), (8, 20, 7, 7)),
    "panels of pixels, the last one of two tiles": (conv2d(20, 30, 1), (9, 20, 14, 14)),
    "panels of pixels, several blocks of channels": (conv2d(600, 30, 1), (9, 600, 7, 7)),
    "panels of pixels, less than a vector": (conv2d(20, 30, 1), (1, 20, 3, 2)),
    "panels of pixels, groups": (conv2d(20, 30, 1, groups=5), (9, 20, 7, 7)),
    "panels of every other pixel": (conv2d(20, 30, 1, stride=(2, 2)), (9, 20, 14, 14)),
    "panels of every other pixel, an odd image": (conv2d(40, 30, 1, stride=(2, 2)), (9, 40, 13, 15)),
    "panels of every other pixel, rows longer than a panel": (conv2d(3, 5, 1, stride=(2, 2)), (2, 3, 3, 603)),
    "panels of every other row": (conv2d(20, 30, 1, stride=(2, 1)), (9, 20, 14, 8)),
    "panels of every other column": (conv2d(20, 30, 1, stride=(1, 2)), (9, 20, 7, 8)),
    "panels of a few pixels of an image": (conv2d(20, 30, 1, stride=(5, 4)), (33, 20, 6, 2)),
    "one row of pixels, stride between rows": (conv2d(20, 30, 1, stride=(2, 1)), (9, 20, 1, 32)),
    "1 x 1 with padding": (conv2d(20, 30, 1, padding=(1, 1)), (17, 20, 4, 4)),
    "linear": (LayerSpec("linear", 300, 41), (133, 300)),
    "linear, one row": (LayerSpec("linear", 41, 300), (1, 41)),
    "linear, more features than lanes hold": (LayerSpec("linear", 16500, 3), (65, 16500)),
}


def computed(spec, input_shape, dtype, layout="contiguous", density=0.3):
    """A plan and what the backend makes of it, with the float64 truth."""
    backend = registry.get("cpp/sparse")
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(spec.weight_shape, generator=generator) < density
    x = torch.randn(input_shape, generator=generator).to(dtype)
    values = torch.randn(int(mask.sum()), generator=generator).to(dtype)
    bias = torch.randn(spec.out_channels, generator=generator).to(dtype)
    truth_of_output = reference.forward(x.double(), values.double(), bias.double(), mask, spec)
    grad_out = torch.randn(truth_of_output.shape, generator=generator).to(dtype)
    truth = (
        truth_of_output,
        reference.grad_input(grad_out.double(), values.double(), mask, spec, input_shape),
        reference.grad_weight(x.double(), grad_out.double(), mask, spec),
    )
    plan = backend.pack(Pattern.from_mask(mask), spec)
    if x.dim() == 4:
        x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    ours = (
        backend.forward(x, values, plan, bias),
        backend.grad_input(grad_out, values, plan, input_shape),
        backend.grad_weight(x, grad_out, plan),
    )
    return ours, truth


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape"), SHAPES.values(), ids=SHAPES)
def test_every_way_to_cut_a_layer_up(spec, input_shape, layout, dtype):
    ours, truth = computed(spec, input_shape, dtype, layout)
    for mine, expected in zip(ours, truth, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == expected.shape
        assert mine.dim() != 4 or mine.is_contiguous(memory_format=LAYOUTS[layout])
        assert (mine - expected).abs().max() <= DTYPES[dtype] * expected.abs().max()


@pytest.mark.parametrize("density", [0.3, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape"), SHAPES.values(), ids=SHAPES)
def test_relu_in_the_store_is_relu(spec, input_shape, layout, dtype, density):
    # At 1 %, rows of some blocks of channels have no entries: the last block must rectify them all the same.
    backend, generator = registry.get("cpp/sparse"), torch.Generator().manual_seed(0)
    mask = torch.rand(spec.weight_shape, generator=generator) < density
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x = torch.randn(input_shape, generator=generator, dtype=dtype)
    values = torch.randn(plan.pattern.nnz, generator=generator, dtype=dtype)
    bias = torch.randn(spec.out_channels, generator=generator, dtype=dtype)
    x = x.contiguous(memory_format=LAYOUTS[layout]) if x.dim() == 4 else x
    for given in (bias, None):
        output = backend.forward(x, values, plan, given)
        with poisoned_memory():
            rectified = backend.forward_relu(x, values, plan, given)
        assert (output < 0).any() or given is None
        assert torch.equal(rectified, output.relu())
        assert rectified.stride() == output.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("input_shape", [(16, 3, 7, 13), (1, 3, 7, 13), (33, 3, 4, 4)])
def test_relu_in_the_store_keeps_nan(input_shape, layout):
    backend, spec = registry.get("cpp/sparse"), conv2d(3, 4)
    plan = backend.pack(Pattern.from_mask(torch.ones(spec.weight_shape, dtype=torch.bool)), spec)
    x, values = torch.randn(input_shape), torch.randn(plan.pattern.nnz)
    x[0, 1, 2, 2] = torch.nan
    x = x.contiguous(memory_format=LAYOUTS[layout])
    expected = backend.forward(x, values, plan, None).relu()
    assert expected.isnan().any()
    assert torch.equal(backend.forward_relu(x, values, plan, None).isnan(), expected.isnan())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape"), SHAPES.values(), ids=SHAPES)
def test_the_same_bits_at_any_number_of_threads(spec, input_shape, layout):
    outputs = at_threads(lambda: computed(spec, input_shape, torch.float32, layout)[0], 1, 2, 8, 17)
    for others in outputs[1:]:
        for one, other in zip(outputs[0], others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("input_shape", [(16, 3, 7, 13), (1, 3, 7, 13), (16, 3, 4, 4)])
def test_an_infinity_reaches_the_weights_that_see_it_and_no_others(input_shape, layout, dtype):
    backend, spec = registry.get("cpp/sparse"), conv2d(3, 4)
    mask = torch.ones(spec.weight_shape, dtype=torch.bool)
    x, grad_out = torch.randn(input_shape).to(dtype), torch.randn(input_shape[0], 4, *input_shape[2:]).to(dtype)
    x[0, 1, -1, -1] = torch.inf
    plan = backend.pack(Pattern.from_mask(mask), spec)
    formatted = [images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out)]
    ours = backend.grad_weight(*formatted, plan).view(spec.weight_shape)
    # The last pixel meets every tap but those that would need an output row or column beyond the last.
    expected = torch.zeros(spec.weight_shape, dtype=torch.bool)
    expected[:, 1, 1:, 1:] = True
    assert torch.equal(~torch.isfinite(ours), expected)
    finite = reference.grad_weight(x.nan_to_num(posinf=0.0).float(), grad_out.float(), mask, spec).view(
        spec.weight_shape
    )
    bound = DTYPES[dtype] * 5
    torch.testing.assert_close(ours[~expected].float(), finite[~expected], rtol=bound, atol=bound)


HALVES = {
    "lanes of images": (conv2d(1, 1, 1, padding=(1, 1)), (64, 1, 32, 32)),
    "lanes of pixels": (conv2d(1, 1, 1, padding=(1, 1)), (4, 1, 128, 128)),
    "panels": (conv2d(1, 1, 1), (1, 1, 256, 256)),
    "panels of every other pixel": (conv2d(1, 1, 1, stride=(2, 2)), (1, 1, 512, 512)),
    "linear": (LayerSpec("linear", 1, 1), (65536, 1)),
    "taps far beyond the image": (conv2d(1, 1, padding=(2000, 2000), dilation=(2000, 2000)), (64, 1, 32, 32)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("spec", "input_shape"), HALVES.values(), ids=HALVES)
def test_each_half_is_loaded_as_it_is_and_stored_as_pytorch_rounds(spec, input_shape, dtype, layout):
    """All there are: below the normal ones, not finite, not a number, and products that are none of them."""
    backend = registry.get("cpp/sparse")
    mask = torch.zeros(spec.weight_shape, dtype=torch.bool)
    mask.view(-1)[mask.numel() // 2] = True
    plan = backend.pack(Pattern.from_mask(mask), spec)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    values = torch.tensor([1.1], dtype=dtype)
    x = torch.zeros(input_shape, dtype=dtype)
    x[..., :: spec.stride[0], :: spec.stride[1]] = every.view(x[..., :: spec.stride[0], :: spec.stride[1]].shape)
    x = x.contiguous(memory_format=LAYOUTS[layout]) if x.dim() == 4 else x
    with poisoned_memory():
        output = backend.forward(x, values, plan, None)
    expected = F.pad(x, (spec.padding[1] % 2000,) * 2 + (spec.padding[0] % 2000,) * 2) if x.dim() == 4 else x
    expected = (expected[..., :: spec.stride[0], :: spec.stride[1]].float() * values.float()).to(dtype)
    torch.testing.assert_close(output, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "stride"), [((7, 7), 1), ((8, 8), 1), ((7, 9), 2), ((8, 6), 2), ((7, 8), 3)])
def test_an_infinity_reaches_what_sees_its_pixel_and_no_more(size, stride, layout):
    backend, spec = registry.get("cpp/sparse"), conv2d(3, 4, 1, stride=(stride, stride))
    plan = backend.pack(Pattern.from_mask(torch.ones(spec.weight_shape, dtype=torch.bool)), spec)
    x, values = torch.randn(9, 3, *size), torch.rand(12) + 1
    x[4, 1, 0, 0] = torch.inf
    if stride > 1:
        x[:, :, 1::stride] = x[:, :, :, 1::stride] = torch.nan
    grad_out = torch.rand(9, 4, *spec.output_size(*size)) + 1
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    with poisoned_memory():
        output = backend.forward(x, values, plan, None)
        grad_x = backend.grad_input(grad_out, values, plan, tuple(x.shape))
        grad_values = backend.grad_weight(x, grad_out, plan).view(4, 3)
    expected = torch.zeros(output.shape, dtype=torch.bool)
    expected[4, :, 0, 0] = True
    assert torch.equal(~torch.isfinite(output), expected)
    assert torch.isfinite(grad_values[:, [0, 2]]).all()
    assert not torch.isfinite(grad_values[:, 1]).any()
    seen = torch.zeros(size, dtype=torch.bool)
    seen[::stride, ::stride] = True
    assert torch.equal(grad_x != 0, seen.expand(grad_x.shape))


def test_a_pruned_weight_keeps_an_infinity_out():
    backend, spec = registry.get("cpp/sparse"), LayerSpec("linear", 2, 1)
    plan = backend.pack(Pattern.from_mask(torch.tensor([[True, False]])), spec)
    output = backend.forward(torch.tensor([[3.0, torch.inf]]), torch.tensor([2.0]), plan, None)
    assert output.item() == 6.0


@pytest.mark.parametrize("size", [4, 8])
def test_rows_without_weights_in_the_last_block_of_channels_are_stored(size):
    backend, spec = registry.get("cpp/sparse"), conv2d(600, 8)
    mask = torch.zeros(spec.weight_shape, dtype=torch.bool)
    mask[:4, 0, 1, 1] = True
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x, bias = torch.randn(32, 600, size, size), torch.randn(8)
    expected = bias.view(-1, 1, 1).expand(32, 8, size, size).clone()
    expected[:, :4] += 2 * x[:, :1]
    with poisoned_memory():
        output = backend.forward(x, torch.full((4,), 2.0), plan, bias)
    torch.testing.assert_close(output, expected)


def test_an_output_that_is_streamed():
    backend, spec = registry.get("cpp/sparse"), conv2d(2, 600)
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.1
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x, values = torch.randn(512, 2, 4, 4), torch.randn(int(mask.sum()))
    output = backend.forward(x, values, plan, None)
    assert output.numel() * output.element_size() >= 16 << 20
    torch.testing.assert_close(output, reference.forward(x, values, None, mask, spec), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [56, 55])
def test_an_output_of_a_1x1_layer_that_is_streamed(size, layout):
    backend, spec = registry.get("cpp/sparse"), conv2d(2, 300, 1)
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.3
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x, values, bias = torch.randn(5, 2, size, size), torch.randn(plan.pattern.nnz), torch.randn(300)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    with poisoned_memory():
        output = backend.forward(x, values, plan, bias)
        rectified = backend.forward_relu(x, values, plan, bias)
    assert output.numel() * output.element_size() >= 16 << 20
    torch.testing.assert_close(output, reference.forward(x, values, bias, mask, spec), rtol=1e-4, atol=1e-4)
    assert torch.equal(rectified, output.relu())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_of_a_strided_1x1_layer_that_is_streamed(layout):
    backend, spec = registry.get("cpp/sparse"), conv2d(90, 2, 1, stride=(2, 2))
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.3
    plan, input_shape = backend.pack(Pattern.from_mask(mask), spec), (5, 90, 112, 111)
    grad_out = torch.randn(5, 2, 56, 56).contiguous(memory_format=LAYOUTS[layout])
    values = torch.randn(plan.pattern.nnz)
    with poisoned_memory():
        grad_x = backend.grad_input(grad_out, values, plan, input_shape)
    assert grad_x.numel() * grad_x.element_size() >= 16 << 20
    expected = reference.grad_input(grad_out, values, mask, spec, input_shape)
    torch.testing.assert_close(grad_x, expected, rtol=1e-4, atol=1e-4)


LAYER = [2, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1]
BATCHES = {"looked up": 1, "listed": 32}
"""Weights are looked up one by one for a single image, and listed for many, by each thread for all."""


def valid(batch=1):
    """Arguments of lth_sparse_cpu::forward that it takes."""
    return {
        "x": torch.zeros(batch, 2, 5, 5),
        "values": torch.zeros(2),
        "bias": torch.zeros(3),
        "row_offsets": torch.tensor([0, 1, 1, 2], dtype=torch.int32),
        "columns": torch.tensor([0, 17], dtype=torch.int32),
        "layer": LAYER,
    }


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_the_operator_takes_valid_arguments(batch):
    assert torch.ops.lth_sparse_cpu.forward(**valid(batch)).shape == (batch, 3, 5, 5)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("x", torch.zeros(1, 2, 5), "input: got 3 dimensions"),
        ("x", torch.zeros(1, 3, 5, 5), "input: got 3 channels, expected 2"),
        ("x", torch.zeros(1, 2, 5, 5, dtype=torch.int16), "input: expected float32, float64, bfloat16 or float16"),
        ("x", torch.zeros(1, 2, 5, 5, dtype=torch.float16), "values: got another dtype"),
        ("x", torch.zeros(1, 2, 5, 10)[..., ::2], "input: expected a contiguous or channels_last tensor"),
        ("values", torch.zeros(3), "values: got 3 elements, expected 2"),
        ("values", torch.zeros(2, dtype=torch.float64), "values: got another dtype"),
        ("bias", torch.zeros(2), "bias: got 2 elements, expected 3"),
        ("bias", torch.zeros(3, dtype=torch.bfloat16), "bias: got another dtype"),
        ("row_offsets", torch.zeros(3, dtype=torch.int32), "row_offsets: got 3 elements, expected 4"),
        ("row_offsets", torch.tensor([0, 5, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("row_offsets", torch.tensor([0, -9, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([0, 18], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([-1, 1], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([0, 1]), "columns: got another dtype"),
        ("layer", LAYER[:10], "layer: got 10 integers, expected 11"),
        ("layer", [2, 3, 3, 3, 0, 1, 1, 1, 1, 1, 1], "layer: expected positive integers"),
        ("layer", [2, 3, 3, 3, 1, 1, 1, 1, 1, 1, 2], "expected multiples of 2 groups"),
        ("layer", [2, 3, 9, 3, 1, 1, 1, 1, 1, 1, 1], "expected no less than the kernel"),
    ],
)
def test_the_operator_checks_what_it_indexes_with(argument, value, message, batch):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lth_sparse_cpu.forward(**valid(batch) | {argument: value})


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("columns", [[0, 9], [-9, 0]])
def test_a_column_of_another_group_is_refused(columns, batch):
    arguments = valid(batch) | {"columns": torch.tensor(columns, dtype=torch.int32)}
    arguments |= {"layer": [2, 2, 3, 3, 1, 1, 1, 1, 1, 1, 2], "bias": torch.zeros(2)}
    arguments |= {"row_offsets": torch.tensor([0, 1, 2], dtype=torch.int32)}
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.forward(**arguments)


@pytest.mark.parametrize(("row_offsets", "columns"), [([0, 1, 1, 2], [0, 1_000_000]), ([0, 5, 1, 2], [0, 1])])
def test_packing_checks_what_it_indexes_with(row_offsets, columns):
    integers = (torch.tensor(values, dtype=torch.int32) for values in (row_offsets, columns))
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.pack(*integers, LAYER)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_transposed_order_that_leads_outside_is_refused(batch):
    plan = registry.get("cpp/sparse").pack(Pattern.from_mask(torch.ones(3, 2, 3, 3, dtype=torch.bool)), conv2d(2, 3))
    order = plan.transposed_order.clone()
    order[5] = 54
    with pytest.raises(RuntimeError, match="order: expected places among the values"):
        torch.ops.lth_sparse_cpu.grad_input(
            torch.zeros(batch, 3, 5, 5),
            torch.zeros(54),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.transposed_row_offsets,
            plan.transposed_columns,
            order,
            LAYER,
            [batch, 2, 5, 5],
        )


def run_with(instruction_set, *arguments):
    environment = os.environ | {"LTH_SPARSE_CPU": instruction_set}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


LOWER = {"avx512": ["avx2", "portable"], "avx2": ["portable"], "portable": []}


@pytest.mark.parametrize("instruction_set", ["avx2", "portable"])
def test_lower_instruction_sets_of_this_machine(instruction_set):
    highest = torch.ops.lth_sparse_cpu.instruction_set()
    if instruction_set not in LOWER[highest]:
        pytest.skip(f"this process runs {highest}")
    files = [__file__, str(Path(__file__).with_name("test_linear.py"))]
    done = run_with(
        instruction_set, "-m", "pytest", "-q", "-x", *files, "-k", "not instruction_set and not channels_last"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_instruction_set_is_named():
    done = run_with("avx9", "-c", "import lth_sparse; print(lth_sparse.backends()['cpp'])")
    assert "LTH_SPARSE_CPU=avx9: expected avx512, avx2 or portable" in done.stdout, done.stdout + done.stderr
