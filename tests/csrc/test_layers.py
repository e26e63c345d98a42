"""Which layers the C++ operators take: none whose numbers overflow, and what memory those take that reach far."""

import pytest
import torch

from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.nn import SparseConv2d
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.memory import peak_memory
from tests.poison import poisoned_memory

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


def layer(**changed):
    """One channel in and out, a kernel of one pixel: `name` or `name_x` (columns) changed."""
    names = (
        "inside",
        "outside",
        "kernel",
        "kernel_x",
        "stride",
        "stride_x",
        "padding",
        "padding_x",
        "dilation",
        "dilation_x",
    )
    usual = dict.fromkeys((*names, "groups"), 1) | {"padding": 0, "padding_x": 0}
    assert changed.keys() <= usual.keys()
    return list((usual | changed).values())


TOO_MUCH = [
    (layer(inside=2**31), r"it has 2\^31 channels or more"),
    (layer(outside=2**62), r"it has 2\^31 channels or more"),
    (layer(kernel=2**32, kernel_x=2**32), r"its kernel has more than 2\^20 entries"),
    (layer(kernel=2**31 - 1), r"its kernel has more than 2\^20 entries"),
    (layer(kernel=1025, kernel_x=1024), r"its kernel has more than 2\^20 entries"),
    (layer(inside=2**20, kernel=17), r"its channels times the entries of its kernel are more than 2\^24"),
    (layer(outside=2**20, kernel=17), r"its channels times the entries of its kernel are more than 2\^24"),
    (layer(stride=2**32, stride_x=2**32), r"its stride is 2\^31 or more"),
    (layer(stride=9, stride_x=8), "its stride leaves out most of the input"),
    (layer(stride=2**31 - 1, stride_x=2**31 - 1), "its stride leaves out most of the input"),
    (layer(inside=2**26, stride=8, stride_x=8), r"its channels times its strides are 2\^31 or more"),
    (layer(padding=2**63 - 1), r"its padding is wider than 2\^20"),
    (layer(kernel=2, dilation=2**63 - 1), r"its kernel reaches further than 2\^20"),
    (layer(kernel=5, dilation=2**18 + 1), r"its kernel reaches further than 2\^20"),
]


@pytest.mark.parametrize(("integers", "reason"), TOO_MUCH, ids=[str(integers) for integers, _ in TOO_MUCH])
def test_no_operator_multiplies_what_could_overflow(integers, reason):
    operators, x = torch.ops.lth_sparse_cpu, torch.ones(1, 1, 2, 2)
    no_row, none, ones = int32(0, 0), int32(), torch.ones(0)
    assert operators.refuses(integers)
    for call in (
        lambda: operators.pack(no_row, none, integers),
        lambda: operators.forward(x, ones, None, no_row, none, integers),
        lambda: operators.grad_input(x, ones, *[no_row, none] * 2, none, integers, [1, 1, 2, 2]),
        lambda: operators.grad_weight(x, x, no_row, none, integers),
        lambda: operators.winograd_forward(x, ones, None, no_row, none, integers, 4),
    ):
        with pytest.raises(RuntimeError, match=reason):
            call()


def test_layers_at_the_bounds_are_taken():
    for integers in (
        layer(inside=2**31 - 1),
        layer(kernel=1024, kernel_x=1024),
        layer(stride=8, stride_x=8),
        layer(kernel=16, kernel_x=16, stride=16, stride_x=16),
        layer(padding=2**20),
        layer(kernel=5, dilation=2**18),
        layer(dilation=2**63 - 1),
    ):
        assert torch.ops.lth_sparse_cpu.refuses(integers) == ""


LINEAR_IS_NOT = [
    layer(inside=17, outside=2, padding_x=64),
    layer(inside=17, outside=2, stride=2),
    layer(inside=17, outside=2, kernel_x=2, padding_x=1),
]


@pytest.mark.parametrize("integers", LINEAR_IS_NOT, ids=str)
def test_two_dimensions_are_for_linear_layers(integers):
    operators, x, offsets, columns = torch.ops.lth_sparse_cpu, torch.ones(17, 17), int32(0, 1, 1), int32(0)
    phases = integers[4] * integers[5]
    transposed = int32(0, *[1] * (17 * phases))
    for call in (
        lambda: operators.forward(x, torch.ones(1), None, offsets, columns, integers),
        lambda: operators.grad_input(
            torch.ones(17, 2), torch.ones(1), offsets, columns, transposed, columns, columns, integers, [17, 17]
        ),
        lambda: operators.grad_weight(x, torch.ones(17, 2), offsets, columns, integers),
    ):
        with pytest.raises(RuntimeError, match="got 2 dimensions, expected 4: the layer is not linear"):
            call()


def test_two_dimensions_are_not_for_winograd():
    operators, integers = torch.ops.lth_sparse_cpu, layer(kernel=3, kernel_x=3)
    weights = (int32(0, 1), int32(0), integers)
    for call in (
        lambda: operators.winograd_grad_input(torch.ones(9, 1), torch.ones(1), *weights, [9, 1, 3, 3], 4),
        lambda: operators.winograd_forward(torch.ones(9, 1), torch.ones(1), None, *weights, 4),
        lambda: operators.winograd_grad_weight(torch.ones(9, 1, 3, 3), torch.ones(9, 1), *weights, 4),
    ):
        with pytest.raises(RuntimeError, match="got 2 dimensions, expected 4: the layer is not linear"):
            call()


@pytest.mark.parametrize("shape", [(16, 1, 0, 4), (16, 1, 4, 0), (16, 1, 0, 0)])
def test_images_without_a_pixel(shape):
    operators, integers = torch.ops.lth_sparse_cpu, layer(kernel=3, kernel_x=3, padding=3, padding_x=3)
    x = torch.ones(shape)
    grad_out = torch.ones(16, 1, shape[2] + 4, shape[3] + 4)
    offsets, columns, values = int32(0, 1), int32(4), torch.ones(1)
    for call in (
        lambda: operators.forward(x, values, None, offsets, columns, integers),
        lambda: operators.grad_input(grad_out, values, *[offsets, columns] * 2, int32(0), integers, shape),
        lambda: operators.grad_weight(x, grad_out, offsets, columns, integers),
    ):
        with pytest.raises(RuntimeError, match="expected at least a pixel"):
            call()
    for dense in (True, False):
        module = (torch.nn.Conv2d if dense else SparseConv2d)(1, 1, 3, padding=3)
        with pytest.raises(RuntimeError if dense else ValueError):
            module(x)
        assert module(x[:0]).shape == (0, *grad_out.shape[1:])  # Without images, as nn.Conv2d.


@pytest.mark.parametrize("input_shape", [(1, 1, 2**62, 1), (1, 1, 2**40, 2**40), (1, 1, -(2**63), 1), (2**62, 1, 2, 2)])
def test_the_shape_of_a_gradient_cannot_overflow(input_shape):
    with pytest.raises(RuntimeError, match=r"expected fewer than 2\^31 elements|does not have the shape"):
        torch.ops.lth_sparse_cpu.grad_input(
            torch.ones(1, 1, 2, 2), torch.ones(0), *[int32(0, 0), int32()] * 2, int32(), layer(), input_shape
        )


FAR = {
    "both taps in the padding": {"kernel_size": 2, "dilation": 2048, "padding": 1024},
    "one tap in the image": {"kernel_size": 3, "dilation": 700, "padding": 700},
    "along one dimension": {"kernel_size": (2, 1), "dilation": (40_000, 1), "padding": (20_000, 0)},
    "strided": {"kernel_size": 3, "dilation": 600, "padding": 600, "stride": (2, 3)},
    "stride beyond the image": {"kernel_size": 2, "stride": 300},
    "grouped": {"kernel_size": 3, "dilation": 700, "padding": 700, "groups": 4},
}


@pytest.mark.parametrize(
    ("dtype", "relative", "absolute"),
    [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-5, 1e-10), (torch.bfloat16, 2**-8, 1e-4)],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("images", [2, 17])
@pytest.mark.parametrize("options", FAR.values(), ids=FAR)
@pytest.mark.filterwarnings("ignore:.*leaves such a layer to masked dense PyTorch")
def test_memory_is_in_proportion_to_input_and_output(options, images, layout, dtype, relative, absolute):
    torch.manual_seed(0)
    dense = torch.nn.Conv2d(8, 8, **options, dtype=dtype)
    module = SparseConv2d.from_dense(dense, torch.rand(dense.weight.shape) < 0.7, backend="cpp")
    x = torch.randn(images, 8, 20, 20, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    with peak_memory() as taken, poisoned_memory():
        output = module(x)
        grad_out = torch.randn_like(output)
        grads = torch.autograd.grad(output, (x, module.values), grad_out)
    assert taken.mebibytes < 100
    spec, mask = module.spec, module.mask
    # What is left to PyTorch is as exact as PyTorch: without instructions for bfloat16 its sums are in bfloat16.
    exact = dtype if module.computed_by == "dense" else torch.float64
    arguments = x.detach().to(exact), module.values.detach().to(exact)
    truth = (
        reference.forward(*arguments, module.bias.detach().to(exact), mask, spec),
        reference.grad_input(grad_out.to(exact), arguments[1], mask, spec, x.shape),
        reference.grad_weight(arguments[0], grad_out.to(exact), mask, spec),
    )
    for ours, expected in zip((output, *grads), truth, strict=True):
        torch.testing.assert_close(ours.to(exact), expected, rtol=relative, atol=absolute)


def test_what_lies_far_apart_is_rectified_and_keeps_nan():
    spec = LayerSpec("conv2d", 2, 3, (3, 3), padding=(3000, 3000), dilation=(3000, 3000))
    backend = registry.get("cpp/sparse")
    plan = backend.pack(Pattern.from_mask(torch.ones(3, 2, 3, 3, dtype=torch.bool)), spec)
    x, values = torch.randn(16, 2, 5, 5), torch.randn(54)
    x[3, 1, 2, 2] = torch.nan
    output = backend.forward(x, values, plan, None)
    rectified = backend.forward_relu(x, values, plan, None)
    assert torch.equal(rectified.isnan(), output.isnan())
    assert rectified.isnan().sum() == 3
    assert torch.equal(rectified.nan_to_num(7), output.relu().nan_to_num(7))


@pytest.mark.parametrize(
    ("offsets", "columns", "order"),
    [((0, 5, 2), (0, 1), (0, 1)), ((0, 1, 2), (0, 27), (0, 1)), ((0, 1, 2), (0, 1), (0, 9))],
)
def test_what_lies_far_apart_checks_what_it_indexes_with(offsets, columns, order):
    integers = [2, 2, 3, 3, 1, 1, 3000, 3000, 3000, 3000, 1]
    x, values, matrix = torch.ones(16, 2, 5, 5), torch.ones(2), (int32(*offsets), int32(*columns))
    operators = torch.ops.lth_sparse_cpu
    with pytest.raises(RuntimeError, match=r"not those of a mask|expected places among the values"):
        operators.grad_input(x, values, *matrix, *matrix, int32(*order), integers, x.shape)
    if order == (0, 1):
        for call in (
            lambda: operators.forward(x, values, None, *matrix, integers),
            lambda: operators.grad_weight(x, x, *matrix, integers),
        ):
            with pytest.raises(RuntimeError, match="not those of a mask"):
                call()
