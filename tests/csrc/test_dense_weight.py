"""The operators that put values into a dense weight and take them out of one, and the dense backend without them."""

import pytest
import torch

from lth_sparse.backends import auto, cpu_operators, dense, registry
from lth_sparse.backends.choices import Choice, Choices
from lth_sparse.nn import SparseConv2d
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.poison import poisoned_memory

needs_operators = pytest.mark.skipif(
    bool(cpu_operators.UNUSABLE), reason=f"the C++ operators cannot be used here: {cpu_operators.UNUSABLE}"
)
SHAPES = [(5, 7, 3, 3), (1, 1, 1, 1), (6, 33, 1, 1), (4, 3, 5, 2), (9, 31), (3, 1)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def mask_of(shape, density):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density
    if density not in (0, 1) and shape[0] > 2:
        mask[0], mask[-1] = False, True  # A dead row, a full one.
    return mask


def layouts_of(shape):
    return LAYOUTS if len(shape) == 4 else LAYOUTS[:1]


@needs_operators
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0, 0.1, 0.8, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_do_what_the_pattern_does(shape, density, dtype):
    pattern = Pattern.from_mask(mask_of(shape, density))
    values = torch.randn(pattern.nnz).to(dtype)
    dense = torch.randn(shape).to(dtype)
    for layout in layouts_of(shape):
        last = layout == torch.channels_last
        with poisoned_memory():
            weight = torch.ops.lth_sparse_cpu.scatter_weight(values, *pattern.tensors(), last)
            taken = torch.ops.lth_sparse_cpu.gather_weight(dense.contiguous(memory_format=layout), *pattern.tensors())
        assert weight.dtype == dtype
        assert weight.is_contiguous(memory_format=layout)
        assert torch.equal(weight, pattern.scatter(values))
        assert torch.equal(taken, pattern.gather(dense))


@needs_operators
def test_a_mask_in_channels_last_is_read_right():
    """As `model.to(memory_format=torch.channels_last)` leaves it."""
    mask = mask_of((5, 7, 3, 3), 0.4)
    last = mask.contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    pattern = Pattern.from_mask(last)
    values, dense = torch.randn(pattern.nnz), torch.randn(mask.shape)
    for layout in LAYOUTS:
        weight = torch.ops.lth_sparse_cpu.scatter_weight(values, *pattern.tensors(), layout == torch.channels_last)
        assert torch.equal(weight, Pattern.from_mask(mask).scatter(values))
        taken = torch.ops.lth_sparse_cpu.gather_weight(dense.contiguous(memory_format=layout), *pattern.tensors())
        assert torch.equal(taken, dense[mask])


@needs_operators
def test_bits_are_moved_as_they_are():
    pattern = Pattern.from_mask(torch.tensor([[True, False, True, True]]))
    values = torch.tensor([float("nan"), float("-inf"), -0.0])
    weight = torch.ops.lth_sparse_cpu.scatter_weight(values, *pattern.tensors(), False)
    expected = torch.tensor([[float("nan"), 0.0, float("-inf"), -0.0]])
    assert torch.equal(weight.view(torch.int32), expected.view(torch.int32))


@needs_operators
@pytest.mark.parametrize("operator", ["scatter_weight", "gather_weight"])
def test_operators_pass_opcheck(operator):
    pattern = Pattern.from_mask(mask_of((4, 3, 3, 3), 0.5))
    dense = torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    arguments = {
        "scatter_weight": (torch.randn(pattern.nnz), *pattern.tensors(), True),
        "gather_weight": (dense, *pattern.tensors()),
    }
    torch.library.opcheck(getattr(torch.ops.lth_sparse_cpu, operator), arguments[operator])


def valid():
    """Arguments of both operators that they take."""
    pattern = Pattern.from_mask(torch.tensor([[True, False], [True, True]]))
    return {
        "values": torch.zeros(3),
        "weight": torch.zeros(2, 2),
        "mask": pattern.mask,
        "row_offsets": pattern.row_offsets,
        "columns": pattern.column_indices,
        "channels_last": False,
    }


def call(operator, changed):
    operator = getattr(torch.ops.lth_sparse_cpu, operator).default
    arguments = valid() | changed
    return operator(*(arguments[argument.name] for argument in operator._schema.arguments))


def int32(*numbers):
    return torch.tensor(numbers, dtype=torch.int32)


BAD = [
    ({"values": torch.zeros(4)}, "values: got 4 elements, expected 3"),
    ({"values": torch.zeros(3, dtype=torch.int8)}, "values: got elements of 1 bytes"),
    ({"mask": torch.ones(2, 2)}, "mask: expected a bool tensor on the CPU"),
    ({"mask": torch.ones(2, 4, dtype=torch.bool)[:, ::2]}, "mask: expected a contiguous or channels_last tensor"),
    ({"mask": torch.ones(4, dtype=torch.bool)}, "mask: got 1 dimensions and 4 elements"),
    ({"mask": torch.ones(2, 2, dtype=torch.bool)}, "not those of one mask"),
    ({"mask": torch.tensor([[False, False], [True, True]])}, "not those of one mask"),
    ({"row_offsets": int32(0, 3)}, "row_offsets: got 2 elements, expected 3"),
    ({"row_offsets": int32(0, -1, 3)}, "not those of one mask"),
    ({"row_offsets": int32(0, 9, 3)}, "not those of one mask"),
    ({"columns": int32(0, 1)}, "row_offsets: expected to run from 0 to 2"),
    ({"channels_last": True}, "channels_last: expected a mask of 4 dimensions"),
    ({"weight": torch.zeros(2, 3)}, "weight: expected the mask's shape"),
    ({"weight": torch.zeros(2, 4)[:, ::2]}, "weight: expected a contiguous or channels_last tensor"),
    ({"weight": torch.zeros(2, 2, dtype=torch.bool)}, "weight: got elements of 1 bytes"),
]


@needs_operators
@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_operators_check_what_they_index_with(changed, message):
    operator = "gather_weight" if "weight" in changed else "scatter_weight"
    with pytest.raises(RuntimeError, match=message):
        call(operator, changed)
    if "row_offsets" in changed:
        with pytest.raises(RuntimeError, match=message):
            call("gather_weight", changed)


@needs_operators
@pytest.mark.parametrize("columns", [(0, 0, 2), (-1, 0, 1)])
def test_columns_that_lead_outside_are_refused(columns):
    with pytest.raises(RuntimeError, match="not those of one mask"):
        call("gather_weight", {"columns": int32(*columns)})


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("density", [0, 0.4, 1])
def test_the_dense_backend_gives_the_same_bits_without_the_operators(layout, density, monkeypatch):
    spec = LayerSpec("conv2d", 6, 8, kernel_size=(3, 3), padding=(1, 1))
    pattern = Pattern.from_mask(mask_of(spec.weight_shape, density))
    backend = registry.get("dense")
    generator = torch.Generator().manual_seed(0)
    x, grad_out = (
        torch.randn(2, channels, 5, 5, generator=generator).contiguous(memory_format=layout) for channels in (6, 8)
    )
    values = torch.randn(pattern.nnz, generator=generator)

    def results():
        plan = backend.pack(pattern, spec)
        return (
            backend.forward(x, values, plan, None),
            backend.grad_input(grad_out, values, plan, tuple(x.shape)),
            backend.grad_weight(x, grad_out, plan),
        )

    with_operators = results()
    monkeypatch.setattr(cpu_operators, "UNUSABLE", "not built")
    for ours, theirs in zip(with_operators, results(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_dense_backend_takes_a_mask_of_any_strides():
    spec = LayerSpec("linear", 20, 10)
    mask = mask_of(spec.weight_shape, 0.5)
    backend = registry.get("dense")
    x, grad_out, values = torch.randn(3, 20), torch.randn(3, 10), torch.randn(int(mask.sum()))
    plans = [backend.pack(Pattern.from_mask(each), spec) for each in (mask, mask.t().contiguous().t())]
    outputs = [backend.forward(x, values, plan, None) for plan in plans]
    gradients = [backend.grad_weight(x, grad_out, plan) for plan in plans]
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)


@needs_operators
def test_the_dense_plan_keeps_no_positions_of_its_own():
    spec = LayerSpec("linear", 20, 10)
    plan = registry.get("dense").pack(Pattern.from_mask(mask_of(spec.weight_shape, 0.5)), spec)
    assert plan.flat_positions.numel() == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("density", [0.4, 1])
@pytest.mark.parametrize("backend", ["dense", "auto"])
def test_the_weight_is_made_once_a_step(layout, density, backend, monkeypatch):
    """By the forward pass, for itself and for the gradient of its input, which must not see another one."""
    made = []
    scatter = dense._scatter
    monkeypatch.setattr(dense, "_scatter", lambda *given: made.append(1) or scatter(*given))
    monkeypatch.setattr(registry.get("auto"), "choices", Choices())
    monkeypatch.setattr(auto, "candidates", lambda: ["dense"])
    layer = SparseConv2d(6, 8, 3, mask=mask_of((8, 6, 3, 3), density), backend=backend)
    x = torch.randn(2, 6, 5, 5).contiguous(memory_format=layout).requires_grad_()
    grad_out = torch.randn(2, 8, 3, 3).contiguous(memory_format=layout)
    output = layer(x)
    output.backward(grad_out, retain_graph=True)
    assert len(made) == 1
    weight = layer.weight.detach()
    expected = torch.nn.grad.conv2d_input(x.shape, weight, grad_out)
    assert torch.allclose(x.grad, expected, atol=1e-5)
    x.grad = None
    output.backward(grad_out)
    assert torch.allclose(x.grad, expected, atol=1e-5)
    assert len(made) == 1


def test_a_layer_whose_input_needs_no_gradient_keeps_no_weight():
    layer = SparseConv2d(6, 8, 3, mask=mask_of((8, 6, 3, 3), 0.4), backend="dense")
    output = layer(torch.randn(2, 6, 5, 5))
    saved = [tensor for tensor in output.grad_fn.saved_tensors if tensor is not None]
    assert [tuple(tensor.shape) for tensor in saved] == [(2, 6, 5, 5), tuple(layer.values.shape)]


def test_auto_keeps_no_weight_of_a_backend_that_it_has_not_chosen(monkeypatch):
    monkeypatch.setattr(registry.get("auto"), "choices", Choices())
    monkeypatch.setattr(auto, "_winner", lambda seconds, failed: Choice("cpp/sparse"))
    layer = SparseConv2d(6, 8, 3, mask=mask_of((8, 6, 3, 3), 0.4), backend="auto")
    output = layer(torch.randn(2, 6, 5, 5).requires_grad_())
    assert output.grad_fn.saved_tensors[2] is None
