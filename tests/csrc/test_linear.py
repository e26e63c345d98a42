"""The C++ kernels of linear layers, csrc/cpu/linear: one row of input, rows in one to four vectors, groups of them."""

import pytest
import torch

from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-15, torch.bfloat16: 4e-4, torch.float16: 5e-5}
"""A tenth of what results may be off, of the largest: those of 16 bits are rounded once."""
BATCHES = (*range(1, 18), 33, 64, 65, 130, 330)
SIZES = {"many inputs": (203, 37), "many outputs": (5, 301), "one of each": (1, 1), "enough for threads": (700, 600)}


def masks(inputs, outputs):
    """With empty rows and columns, with none live, with all."""
    mask = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(0)) < 0.4
    mask[::3] = False
    mask[:, 1::4] = False
    return mask, torch.zeros_like(mask), torch.ones_like(mask)


def passes(mask, x, grad_out, values, bias):
    """Output, output after ReLU, gradients of x and of values; what nobody wrote is NaN."""
    backend, spec = registry.get("cpp/sparse"), LayerSpec("linear", mask.shape[1], mask.shape[0])
    plan = backend.pack(Pattern.from_mask(mask), spec)
    with poisoned_memory():
        return (
            backend.forward(x, values, plan, bias),
            backend.forward_relu(x, values, plan, None),
            backend.grad_input(grad_out, values, plan, tuple(x.shape)),
            backend.grad_weight(x, grad_out, plan),
        )


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("inputs", "outputs"), SIZES.values(), ids=SIZES)
def test_every_batch_is_near_float64_with_the_same_bits_at_any_number_of_threads(inputs, outputs, dtype):
    generator, spec = torch.Generator().manual_seed(1), LayerSpec("linear", inputs, outputs)
    for batch in BATCHES:
        for mask in masks(inputs, outputs)[: 1 if inputs == 700 else 3]:
            # Neither is contiguous.
            x = torch.randn(batch, 2 * inputs, dtype=dtype, generator=generator)[:, ::2]
            grad_out = torch.randn(outputs, batch, dtype=dtype, generator=generator).t()
            values = torch.randn(int(mask.sum()), dtype=dtype, generator=generator)
            bias = torch.randn(outputs, dtype=dtype, generator=generator)
            exact = [each.double() for each in (x, grad_out, values, bias)]
            truth = (
                reference.forward(exact[0], exact[2], exact[3], mask, spec),
                reference.forward(exact[0], exact[2], None, mask, spec).relu(),
                reference.grad_input(exact[1], exact[2], mask, spec, (batch, inputs)),
                reference.grad_weight(exact[0], exact[1], mask, spec),
            )
            given = (mask, x, grad_out, values, bias)
            found, *others = at_threads(lambda given=given: passes(*given), 1, 2, 5)
            for other in others:
                assert all(torch.equal(mine, same) for mine, same in zip(found, other, strict=True)), batch
            for mine, expected in zip(found, truth, strict=True):
                assert mine.dtype == dtype
                assert mine.shape == expected.shape
                largest = expected.abs().max() if expected.numel() else 0
                assert torch.all((mine - expected).abs() <= 10 * ROUNDING[dtype] * largest), batch


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("batch", [1, 5, 16, 17, 70])
def test_nan_stays_and_reaches_what_it_meets_alone(batch, dtype):
    mask = torch.tensor([[True, False, True], [False, True, False]])
    x, grad_out, values = torch.ones(batch, 3).to(dtype), torch.ones(batch, 2).to(dtype), torch.ones(3).to(dtype)
    x[-1, 2] = grad_out[-1, 1] = torch.nan
    output, rectified, grad_x, grad_values = passes(mask, x, grad_out, values, None)
    row = torch.arange(batch).unsqueeze(1) == batch - 1
    assert torch.equal(output.isnan(), row & torch.tensor([True, False]))
    assert torch.equal(rectified.isnan(), output.isnan())
    assert torch.equal(grad_x.isnan(), row & torch.tensor([False, True, False]))
    assert grad_values.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("batch", [1, 5, 17, 70])
@pytest.mark.parametrize(
    ("row_offsets", "columns"), [([0, 1, 1, 2], [0, 9]), ([0, 1, 1, 2], [-1, 0]), ([0, 5, 1, 2], [0, 1])]
)
def test_what_is_no_mask_is_refused(batch, row_offsets, columns):
    matrix = [torch.tensor(each, dtype=torch.int32) for each in (row_offsets, columns)]
    layer = LayerSpec("linear", 9, 3).to_ints()[1:]
    x, grad_out, values, operators = torch.ones(batch, 9), torch.ones(batch, 3), torch.ones(2), torch.ops.lth_sparse_cpu
    transposed = [torch.tensor([0, *[2] * 9], dtype=torch.int32), torch.tensor([0, 7], dtype=torch.int32)]
    order = torch.tensor([0, 1], dtype=torch.int32)
    for call in (
        lambda: operators.forward(x, values, None, *matrix, layer),
        lambda: operators.grad_weight(x, grad_out, *matrix, layer),
        lambda: operators.grad_input(grad_out, values, *matrix, *transposed, order, layer, x.shape),
    ):
        with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
            call()


def test_an_order_that_leads_outside_is_refused():
    plan = registry.get("cpp/sparse").pack(
        Pattern.from_mask(torch.ones(3, 2, dtype=torch.bool)), LayerSpec("linear", 2, 3)
    )
    order = plan.transposed_order.clone()
    order[5] = 6
    matrices = (*plan.pattern.tensors()[1:], plan.transposed_row_offsets, plan.transposed_columns, order)
    with pytest.raises(RuntimeError, match="order: expected places among the values"):
        torch.ops.lth_sparse_cpu.grad_input(
            torch.ones(20, 3), torch.ones(6), *matrices, plan.spec.to_ints()[1:], [20, 2]
        )


@pytest.mark.parametrize("images", [1, 3, 40])
def test_a_grouped_convolution_of_one_pixel_is_a_linear_layer(images):
    spec = LayerSpec("conv2d", 20, 30, (1, 1), groups=5)
    backend, mask = registry.get("cpp/sparse"), torch.rand(spec.weight_shape) < 0.5
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x, grad_out, values = torch.randn(images, 20, 1, 1), torch.randn(images, 30, 1, 1), torch.randn(int(mask.sum()))
    for mine, expected in (
        (backend.forward(x, values, plan, None), reference.forward(x, values, None, mask, spec)),
        (
            backend.grad_input(grad_out, values, plan, x.shape),
            reference.grad_input(grad_out, values, mask, spec, x.shape),
        ),
        (backend.grad_weight(x, grad_out, plan), reference.grad_weight(x, grad_out, mask, spec)),
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
