"""Winograd's algorithm in C++: every way in which it cuts a layer up, on every instruction set that is here."""

import pytest
import torch

from lth_sparse import reference
from lth_sparse.backends import registry, winograd
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.csrc.test_cpp_kernels import LAYOUTS, LOWER, run_with
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)

TILES = {"2x2": 2, "4x4": 4}
OPERATORS = ("winograd_forward", "winograd_grad_input", "winograd_grad_weight")


def conv2d(in_channels, out_channels, padding=1):
    return LayerSpec("conv2d", in_channels, out_channels, (3, 3), padding=(padding, padding))


# (layer, input, density): each reaches another order, tile or remainder; see csrc/cpu/winograd/passes.h.
SHAPES = {
    "whole vectors and tiles": (conv2d(16, 32), (2, 16, 8, 16), 1.0),
    "ragged tiles and channels": (conv2d(5, 7), (3, 5, 9, 11), 0.5),
    "a panel of one vector": (conv2d(33, 47), (2, 33, 7, 7), 0.7),
    "no padding": (conv2d(16, 48, 0), (5, 16, 14, 14), 0.6),
    "padding of two": (conv2d(20, 20, 2), (2, 20, 13, 5), 0.9),
    "one pixel": (conv2d(1, 1), (1, 1, 1, 1), 1.0),
    "little more than the kernel": (conv2d(3, 4, 0), (2, 3, 4, 3), 1.0),
    "one row": (conv2d(16, 16), (2, 16, 1, 40), 0.5),
    "one column": (conv2d(16, 16), (2, 16, 40, 1), 0.5),
    "bands that go on": (conv2d(8, 8), (1, 8, 37, 33), 0.5),
    "a tile row wider than a block": (conv2d(3, 5), (1, 3, 5, 301), 0.5),
    "several sums of channels": (conv2d(150, 20), (2, 150, 6, 6), 0.4),
    "few tiles, many weights": (conv2d(260, 250), (9, 260, 4, 4), 0.4),
    "sums at each point": (conv2d(200, 190), (40, 200, 4, 4), 0.4),
    "sums by weights": (conv2d(370, 360), (3, 370, 4, 4), 0.2),
    "nothing lives": (conv2d(16, 16), (2, 16, 5, 5), 0.0),
    "an output that is streamed": (conv2d(3, 64), (20, 3, 64, 64), 1.0),
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


def computed(spec, mask, x, values, bias, grad_out, tile):
    """Output and both gradients, in memory that was full of NaN."""
    pattern, layer = Pattern.from_mask(mask), spec.to_ints()[1:]
    weights = (pattern.row_offsets, pattern.column_indices, layer)
    forward, grad_input, grad_weight = (getattr(torch.ops.lth_sparse_cpu, name) for name in OPERATORS)
    with poisoned_memory():
        return (
            forward(x, values, bias, *weights, tile),
            grad_input(grad_out, values, *weights, x.shape, tile),
            grad_weight(x, grad_out, *weights, tile),
        )


@pytest.mark.parametrize("setting", TILES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_every_way_to_cut_a_layer_up(spec, input_shape, density, layout, setting):
    mask, x, values, bias, grad_out = made(spec, input_shape, density)
    truth = (
        reference.forward(x.double(), values.double(), bias.double(), mask, spec),
        reference.grad_input(grad_out.double(), values.double(), mask, spec, input_shape),
        reference.grad_weight(x.double(), grad_out.double(), mask, spec),
    )
    x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    ours = computed(spec, mask, x, values, bias, grad_out, TILES[setting])
    for mine, expected in zip(ours, truth, strict=True):
        assert mine.shape == expected.shape
        assert mine.dim() != 4 or mine.is_contiguous(memory_format=LAYOUTS[layout])
        largest = expected.abs().max() if expected.numel() else torch.tensor(0.0)
        assert torch.all((mine - expected).abs() <= winograd.ERROR[setting] * largest)


@pytest.mark.parametrize("setting", TILES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_relu_in_the_store_is_relu(spec, input_shape, density, layout, setting):
    mask, x, values, bias, _ = made(spec, input_shape, density)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:], TILES[setting])
    for given in (bias, None):
        output = torch.ops.lth_sparse_cpu.winograd_forward(x, values, given, *weights)
        with poisoned_memory():
            rectified = torch.ops.lth_sparse_cpu.winograd_forward(x, values, given, *weights, True)
        assert torch.equal(rectified, output.relu())
        assert rectified.stride() == output.stride()


@pytest.mark.parametrize(("spec", "input_shape", "density"), SHAPES.values(), ids=SHAPES)
def test_the_same_bits_at_any_number_of_threads(spec, input_shape, density):
    given = made(spec, input_shape, density)
    outputs = at_threads(lambda: computed(spec, *given, 4), 1, 2, 8, 17, 40)
    for others in outputs[1:]:
        for one, other in zip(outputs[0], others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("setting", TILES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_spoils_the_tiles_that_see_it_and_no_others(value, setting):
    spec, tile = conv2d(3, 4), TILES[setting]
    mask, x, values, _, grad_out = made(spec, (2, 3, 17, 13), 1.0)
    clean = computed(spec, mask, x, values, None, grad_out, tile)
    x[1, 1, 6, 5] = value
    output, _, grad_weight = computed(spec, mask, x, values, None, grad_out, tile)
    # A patch begins one pixel before its tile and ends one after it.
    rows, columns = (
        [at for at in range(0, size, tile) if at - 1 <= place <= at + tile] for size, place in ((17, 6), (13, 5))
    )
    of_tiles = torch.zeros_like(output, dtype=torch.bool)
    for row in rows:
        for column in columns:
            of_tiles[1, :, row : row + tile, column : column + tile] = True
    assert not torch.isfinite(output[1, :, 5:8, 4:7]).any()
    assert torch.equal(output[~of_tiles], clean[0][~of_tiles])
    of_channel = torch.zeros(spec.weight_shape, dtype=torch.bool)
    of_channel[:, 1] = True
    assert torch.equal(~torch.isfinite(grad_weight.view(spec.weight_shape)), of_channel)


def test_outputs_of_an_image_do_not_depend_on_the_batch():
    # Large weights: few tiles are computed in another order than many.
    spec = conv2d(260, 250)
    mask, x, values, bias, _ = made(spec, (300, 260, 2, 4), 0.02)
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
    many, few = (torch.ops.lth_sparse_cpu.winograd_forward(each, values, bias, *weights, 4) for each in (x, x[:9]))
    assert torch.equal(many[:9], few)


def test_weights_that_are_too_large_to_be_kept():
    spec = conv2d(970, 970)
    mask, x, values, bias, _ = made(spec, (260, 970, 1, 2), 0.01)
    assert 36 * 970 * 970 * 4 > 128 << 20
    pattern = Pattern.from_mask(mask)
    weights = (pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
    with poisoned_memory():
        output = torch.ops.lth_sparse_cpu.winograd_forward(x, values, bias, *weights, 4)
    expected = reference.forward(x, values, bias, mask, spec)
    assert (output - expected).abs().max() <= 2 * winograd.ERROR["4x4"] * expected.abs().max()


LAYER = [2, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1]


def valid():
    """Arguments that winograd_forward takes."""
    return {
        "x": torch.zeros(1, 2, 5, 5),
        "values": torch.zeros(2),
        "bias": torch.zeros(3),
        "row_offsets": torch.tensor([0, 1, 1, 2], dtype=torch.int32),
        "columns": torch.tensor([0, 17], dtype=torch.int32),
        "layer": LAYER,
        "tile": 4,
    }


def test_the_operator_takes_valid_arguments():
    assert torch.ops.lth_sparse_cpu.winograd_forward(**valid()).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("x", torch.zeros(1, 3, 5, 5), "input: got 3 channels, expected 2"),
        ("x", torch.zeros(1, 2, 5, 5, dtype=torch.float64), "input: expected float32"),
        ("x", torch.zeros(1, 2, 5, 10)[..., ::2], "input: expected a contiguous or channels_last tensor"),
        ("values", torch.zeros(3), "values: got 3 elements, expected 2"),
        ("bias", torch.zeros(2), "bias: got 2 elements, expected 3"),
        ("row_offsets", torch.tensor([0, 5, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("row_offsets", torch.tensor([0, -9, 1, 2], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([0, 18], dtype=torch.int32), "not those of a mask of this layer"),
        ("columns", torch.tensor([-1, 1], dtype=torch.int32), "not those of a mask of this layer"),
        ("layer", [2, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1], "expected a 3 x 3 convolution of stride 1"),
        ("layer", [2, 3, 5, 5, 1, 1, 1, 1, 1, 1, 1], "expected a 3 x 3 convolution of stride 1"),
        ("tile", 3, "tile: got 3, expected 2 or 4"),
    ],
)
def test_the_operator_checks_what_it_indexes_with(argument, value, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lth_sparse_cpu.winograd_forward(**valid() | {argument: value})


@pytest.mark.parametrize("channels", [2, 300], ids=["weights first", "patches first"])
@pytest.mark.parametrize("column", [-1, 1 << 20])
def test_gradients_check_what_they_index_with(column, channels):
    spec = conv2d(channels, channels)
    mask, x, values, _, grad_out = made(spec, (2, channels, 4, 4), 0.5)
    pattern = Pattern.from_mask(mask)
    columns = pattern.column_indices.clone()
    columns[0 if column < 0 else -1] = column
    weights = (pattern.row_offsets, columns, spec.to_ints()[1:])
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.winograd_grad_input(grad_out, values, *weights, x.shape, 4)
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        torch.ops.lth_sparse_cpu.winograd_grad_weight(x, grad_out, *weights, 4)


def test_a_batch_without_images():
    spec = conv2d(3, 4)
    output, grad_input, grad_weight = computed(spec, *made(spec, (0, 3, 5, 5), 1.0), 4)
    assert output.shape == (0, 4, 5, 5)
    assert grad_input.shape == (0, 3, 5, 5)
    assert torch.equal(grad_weight, torch.zeros(108))


@pytest.mark.parametrize("instruction_set", ["avx2", "portable"])
def test_lower_instruction_sets_of_this_machine(instruction_set):
    highest = torch.ops.lth_sparse_cpu.instruction_set()
    if instruction_set not in LOWER[highest]:
        pytest.skip(f"this process runs {highest}")
    done = run_with(instruction_set, "-m", "pytest", "-q", "-x", __file__, "-k", "not instruction_set")
    assert done.returncode == 0, done.stdout + done.stderr
