"""Depthwise convolutions in C++: every way in which they cut a layer up, on every instruction set that is here."""

import pytest
import torch

from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.backends.base import memory_format
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.csrc.test_cpp_kernels import LAYOUTS, LOWER, run_with
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)

ERROR = 2e-6
"""Over the largest result, against float64."""
OPERATORS = ("depthwise_forward", "depthwise_grad_input", "depthwise_grad_weight")


def depthwise(channels, size=3, stride=1, padding=None):
    padding = (size // 2, size // 2) if padding is None else padding
    return LayerSpec(
        "conv2d", channels, channels, (size, size), stride=(stride, stride), padding=padding, groups=channels
    )


# (layer, input, density): each reaches another window, block or remainder; see csrc/cpu/depthwise/.
SHAPES = {
    "whole vectors": (depthwise(32), (2, 32, 8, 32), 1.0),
    "one vector of channels and some": (depthwise(20), (2, 20, 14, 14), 0.7),
    "fewer channels than lanes": (depthwise(3), (3, 3, 9, 11), 0.7),
    "a row of several vectors": (depthwise(5), (2, 5, 13, 71), 0.7),
    "a row that no vector fits": (depthwise(9), (2, 9, 7, 7), 0.7),
    "a row of one pixel": (depthwise(9), (2, 9, 5, 1), 1.0),
    "one row": (depthwise(9), (2, 9, 1, 40), 1.0),
    "one pixel": (depthwise(33), (3, 33, 1, 1), 1.0),
    "two pixels": (depthwise(40), (3, 40, 2, 2), 0.5),
    "many images": (depthwise(17), (130, 17, 4, 4), 0.5),
    "images whose sums are added up in between": (depthwise(2), (3, 2, 70, 66), 0.9),
    "no padding": (depthwise(8, padding=(0, 0)), (2, 8, 9, 20), 0.9),
    "no more than the kernel": (depthwise(4, padding=(0, 0)), (2, 4, 3, 3), 1.0),
    "padding beyond the kernel": (depthwise(4, padding=(4, 5)), (2, 4, 6, 9), 0.9),
    "padding of rows alone": (depthwise(4, padding=(2, 0)), (2, 4, 6, 20), 0.9),
    "stride": (depthwise(20, stride=2), (2, 20, 28, 28), 0.7),
    "stride, odd sizes": (depthwise(7, stride=2), (2, 7, 15, 37), 0.7),
    "stride, several vectors": (depthwise(3, stride=2), (2, 3, 20, 140), 0.7),
    "stride, no padding": (depthwise(7, stride=2, padding=(0, 0)), (2, 7, 12, 40), 0.7),
    "stride, pixels that nothing sees": (depthwise(7, stride=2, padding=(0, 0)), (2, 7, 14, 34), 0.7),
    "stride, one pixel": (depthwise(18, stride=2), (3, 18, 1, 1), 1.0),
    "stride, two rows": (depthwise(18, stride=2), (3, 18, 2, 16), 1.0),
    "stride, padding beyond the kernel": (depthwise(4, stride=2, padding=(4, 5)), (2, 4, 6, 9), 0.9),
    "5 x 5": (depthwise(20, 5), (2, 20, 14, 14), 0.7),
    "5 x 5, several vectors": (depthwise(3, 5), (2, 3, 9, 70), 0.7),
    "5 x 5, smaller images": (depthwise(18, 5), (2, 18, 3, 2), 1.0),
    "5 x 5, stride": (depthwise(20, 5, stride=2), (2, 20, 15, 33), 0.7),
    "5 x 5, stride, odd padding": (depthwise(20, 5, stride=2, padding=(1, 3)), (2, 20, 14, 34), 0.7),
    "nothing lives": (depthwise(16), (2, 16, 5, 5), 0.0),
    "an output that is streamed": (depthwise(32), (8, 32, 128, 144), 1.0),
    "a gradient that is streamed": (depthwise(32, stride=2), (8, 32, 128, 144), 1.0),
}


def made(spec, input_shape, density):
    """mask, x, values, bias and grad_out."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(spec.weight_shape, generator=generator) < density
    x = torch.randn(input_shape, generator=generator)
    values = torch.randn(int(mask.sum()), generator=generator)
    bias = torch.randn(spec.out_channels, generator=generator)
    grad_out = torch.randn(input_shape[0], spec.out_channels, *spec.output_size(*input_shape[2:]), generator=generator)
    return mask, x, values, bias, grad_out


def computed(spec, mask, x, values, bias, grad_out):
    """Output and both gradients, in memory that was full of NaN."""
    pattern, layer = Pattern.from_mask(mask), spec.to_ints()[1:]
    weights = (pattern.row_offsets, pattern.column_indices, layer)
    forward, grad_input, grad_weight = (getattr(torch.ops.lth_sparse_cpu, name) for name in OPERATORS)
    with poisoned_memory():
        return (
            forward(x, values, bias, *weights),
            grad_input(grad_out, values, *weights, x.shape),
            grad_weight(x, grad_out, *weights),
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_every_way_to_cut_a_layer_up(spec, input_shape, density, layout):
    mask, x, values, bias, grad_out = made(spec, input_shape, density)
    truth = (
        reference.forward(x.double(), values.double(), bias.double(), mask, spec),
        reference.grad_input(grad_out.double(), values.double(), mask, spec, input_shape),
        reference.grad_weight(x.double(), grad_out.double(), mask, spec),
    )
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    ours = computed(spec, mask, x, values, bias, grad_out)
    for mine, expected in zip(ours, truth, strict=True):
        assert mine.shape == expected.shape
        largest = expected.abs().max() if expected.numel() else torch.tensor(0.0)
        assert torch.all((mine - expected).abs() <= ERROR * largest)
    # A gradient of one pixel is contiguous in any case.
    assert ours[0].is_contiguous(memory_format=memory_format(x))
    assert ours[1].is_contiguous(memory_format=memory_format(grad_out))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_relu_in_the_store_is_relu(spec, input_shape, density, layout):
    mask, x, values, bias, _ = made(spec, input_shape, density)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
    for given in (bias, None):
        output = torch.ops.lth_sparse_cpu.depthwise_forward(x, values, given, *weights)
        with poisoned_memory():
            rectified = torch.ops.lth_sparse_cpu.depthwise_forward(x, values, given, *weights, True)
        assert torch.equal(rectified, output.relu())
        assert rectified.stride() == output.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_the_same_bits_at_any_number_of_threads(spec, input_shape, density, layout):
    mask, x, values, bias, grad_out = made(spec, input_shape, density)
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    outputs = at_threads(lambda: computed(spec, mask, x, values, bias, grad_out), 1, 2, 8, 17)
    for others in outputs[1:]:
        for one, other in zip(outputs[0], others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (depthwise(5), (9, 21)),
        (depthwise(5), (7, 7)),
        (depthwise(5, padding=(0, 0)), (9, 19)),
        (depthwise(5, stride=2), (9, 37)),
        (depthwise(5, stride=2, padding=(0, 0)), (10, 36)),
        (depthwise(5, 5), (9, 21)),
        (depthwise(5, 5, stride=2), (11, 39)),
    ],
)
def test_what_is_not_finite_spoils_what_a_convolution_spoils(spec, size, layout, value):
    mask, x, values, _, grad_out = made(spec, (2, 5, *size), 1.0)
    for row, column in ((0, 0), (size[0] - 1, size[1] - 1), (4, size[1] - 2), (3, 3)):
        spoilt_x, spoilt_grad = x.clone(), grad_out.clone()
        spoilt_x[1, 3, row, column] = value
        at = min(row, grad_out.shape[2] - 1), min(column, grad_out.shape[3] - 1)
        spoilt_grad[(1, 3, *at)] = value
        given = [images.contiguous(memory_format=LAYOUTS[layout]) for images in (spoilt_x, grad_out, spoilt_grad)]
        output, _, of_x = computed(spec, mask, given[0], values, None, given[1])
        _, grad_input, _ = computed(spec, mask, given[0], values, None, given[2])
        expected = (
            reference.forward(spoilt_x.double(), values.double(), None, mask, spec),
            reference.grad_input(spoilt_grad.double(), values.double(), mask, spec, tuple(x.shape)),
            reference.grad_weight(spoilt_x.double(), grad_out.double(), mask, spec),
        )
        for mine, truth in zip((output, grad_input, of_x), expected, strict=True):
            assert torch.equal(mine.isfinite(), truth.isfinite())


def test_relu_keeps_nan():
    spec = depthwise(4)
    mask, x, values, bias, _ = made(spec, (1, 4, 5, 5), 1.0)
    x[0, 1, 2, 2] = torch.nan
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
    rectified = torch.ops.lth_sparse_cpu.depthwise_forward(x, values, bias, *weights, True)
    assert rectified[0, 1, 1:4, 1:4].isnan().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_an_image_do_not_depend_on_the_batch(layout):
    spec = depthwise(20)
    mask, x, values, bias, grad_out = made(spec, (5, 20, 9, 23), 0.8)
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    many = computed(spec, mask, x, values, bias, grad_out)
    few = computed(spec, mask, x[1:2], values, bias, grad_out[1:2])
    assert torch.equal(many[0][1:2], few[0])
    assert torch.equal(many[1][1:2], few[1])


LAYER = [3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 3]


def valid():
    """Arguments that depthwise_forward takes."""
    return {
        "x": torch.zeros(1, 3, 5, 5),
        "values": torch.zeros(2),
        "bias": torch.zeros(3),
        "row_offsets": torch.tensor([0, 1, 1, 2], dtype=torch.int32),
        "columns": torch.tensor([0, 8], dtype=torch.int32),
        "layer": LAYER,
    }


def test_the_operator_takes_valid_arguments():
    assert torch.ops.lth_sparse_cpu.depthwise_forward(**valid()).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("x", torch.zeros(1, 4, 5, 5), "input: got 4 channels, expected 3"),
        ("x", torch.zeros(1, 3, 5, 5, dtype=torch.float64), "input: expected float32"),
        ("x", torch.zeros(1, 3), "input: got 2 dimensions, expected 4"),
        ("x", torch.zeros(1, 3, 5, 10)[..., ::2], "input: expected a contiguous or channels_last tensor"),
        ("x", torch.zeros(1, 3, 1, 0), "input: got 1 x 0, expected at least a pixel"),
        ("values", torch.zeros(3), "values: got 3 elements, expected 2"),
        ("values", torch.zeros(2, dtype=torch.float64), "values: got another dtype"),
        ("bias", torch.zeros(2), "bias: got 2 elements, expected 3"),
        ("row_offsets", torch.tensor([0, 5, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("row_offsets", torch.tensor([0, -9, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([0, 9], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([-1, 1], dtype=torch.int32), "not those of a mask of this layer"),
        ("layer", [3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1], "expected a convolution of each channel by itself"),
        ("layer", [3, 6, 3, 3, 1, 1, 1, 1, 1, 1, 3], "expected a convolution of each channel by itself"),
        ("layer", [3, 3, 7, 7, 1, 1, 1, 1, 1, 1, 3], "kernel of 3 x 3 or 5 x 5"),
        ("layer", [3, 3, 3, 5, 1, 1, 1, 1, 1, 1, 3], "kernel of 3 x 3 or 5 x 5"),
        ("layer", [3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 3], "stride 1 or 2"),
        ("layer", [3, 3, 3, 3, 2, 1, 1, 1, 1, 1, 3], "stride 1 or 2"),
        ("layer", [3, 3, 3, 3, 1, 1, 1, 1, 2, 2, 3], "no dilation"),
        ("layer", [3, 3], "layer: got 2 integers, expected 11"),
    ],
)
def test_the_operator_checks_what_it_is_given(argument, value, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lth_sparse_cpu.depthwise_forward(**valid() | {argument: value})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("column", [-1, 9, 1 << 20])
def test_gradients_check_what_they_index_with(column, layout):
    spec = depthwise(20)
    mask, x, values, _, grad_out = made(spec, (2, 20, 4, 4), 0.5)
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    pattern = Pattern.from_mask(mask)
    columns = pattern.column_indices.clone()
    columns[-1] = column
    weights = (pattern.row_offsets, columns, spec.to_ints()[1:])
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.depthwise_grad_input(grad_out, values, *weights, x.shape)
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.depthwise_grad_weight(x, grad_out, *weights)


def test_gradients_check_shapes_and_memory_formats():
    spec = depthwise(4)
    mask, x, values, _, grad_out = made(spec, (2, 4, 6, 6), 1.0)
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
    operators = torch.ops.lth_sparse_cpu
    with pytest.raises(RuntimeError, match="grad_out: does not have the shape of the output"):
        operators.depthwise_grad_input(grad_out, values, *weights, (2, 4, 7, 6))
    with pytest.raises(RuntimeError, match="grad_out: does not have the shape of the output"):
        operators.depthwise_grad_weight(x, grad_out[:1], *weights)
    with pytest.raises(RuntimeError, match="grad_out: expected the memory format of the input"):
        operators.depthwise_grad_weight(x, grad_out.contiguous(memory_format=torch.channels_last), *weights)


def test_a_batch_without_images():
    spec = depthwise(3)
    output, grad_input, grad_weight = computed(spec, *made(spec, (0, 3, 5, 5), 1.0))
    assert output.shape == (0, 3, 5, 5)
    assert grad_input.shape == (0, 3, 5, 5)
    assert torch.equal(grad_weight, torch.zeros(27))


@pytest.mark.parametrize("instruction_set", ["avx2", "portable"])
def test_lower_instruction_sets_of_this_machine(instruction_set):
    highest = torch.ops.lth_sparse_cpu.instruction_set()
    if instruction_set not in LOWER[highest]:
        pytest.skip(f"this process runs {highest}")
    done = run_with(instruction_set, "-m", "pytest", "-q", "-x", __file__, "-k", "not instruction_set")
    assert done.returncode == 0, done.stdout + done.stderr
