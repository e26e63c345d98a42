"""The operators: what torch.library asks of them, their memory formats, and what they refuse."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from lth_sparse import ops
from lth_sparse.backends import cpu_operators, registry
from lth_sparse.backends.base import Plan, memory_format
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

BACKENDS = [name for name, reason in registry.backends().items() if not reason]
CHANNELS_LAST = torch.channels_last
CONV = LayerSpec("conv2d", 4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2)
LINEAR = LayerSpec("linear", 5, 3)
SPECS = pytest.mark.parametrize("spec", [CONV, LINEAR], ids=["conv2d", "linear"])
EVERY = pytest.mark.parametrize("name", BACKENDS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pack(name, spec, density=0.5):
    return registry.get(name).pack(Pattern.from_mask(torch.rand(spec.weight_shape) < density), spec)


def samples(spec, plan, dtype=torch.float32, requires_grad=False):
    """x, values, bias and grad_out."""
    if spec.kind == "linear":
        shapes = [(7, spec.in_channels), (7, spec.out_channels)]
    else:
        shapes = [(3, spec.in_channels, 8, 7), (3, spec.out_channels, *spec.output_size(8, 7))]
    x, grad_out = (torch.randn(shape, dtype=dtype) for shape in shapes)
    values, bias = torch.randn(plan.pattern.nnz, dtype=dtype), torch.randn(spec.out_channels, dtype=dtype)
    return [tensor.requires_grad_(requires_grad) for tensor in (x, values, bias)] + [grad_out]


def run(x, values, bias, plan, name):
    """The layer as the modules call it."""
    operator = ops.linear if plan.spec.kind == "linear" else ops.conv2d
    return operator(x, values, bias, plan, name)


def last_arguments(plan, name):
    return list(plan.tensors()), list(plan.spec.to_ints()), name


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("spec", "formats"), [(LINEAR, "contiguous"), (CONV, "contiguous"), (CONV, "channels_last"), (CONV, "mixed")]
)
def test_opcheck(name, spec, dtype, formats):
    plan = pack(name, spec)
    x, values, bias, grad_out = samples(spec, plan, dtype)
    if formats != "contiguous":
        x = x.to(memory_format=CHANNELS_LAST)
    if formats == "channels_last":
        grad_out = grad_out.to(memory_format=CHANNELS_LAST)
    last = last_arguments(plan, name)
    operators = torch.ops.lth_sparse
    leaves = [tensor.detach().requires_grad_() for tensor in (x, values, bias)]
    torch.library.opcheck(operators.forward.default, (*leaves, *last))
    torch.library.opcheck(operators.forward.default, (x, values, None, *last))
    torch.library.opcheck(operators.grad_input.default, (grad_out, values, x.shape, *last))
    torch.library.opcheck(operators.grad_weight.default, (x, grad_out, *last))


@EVERY
@SPECS
def test_the_dispatcher_and_the_straight_way_give_the_same_numbers(name, spec):
    plan = pack(name, spec)
    *leaves, grad_out = samples(spec, plan, requires_grad=True)
    straight = run(*leaves, plan, name)
    dispatched = torch.ops.lth_sparse.forward(*leaves, *last_arguments(plan, name))
    assert torch.equal(straight, dispatched)
    for ours, theirs in zip(
        torch.autograd.grad(straight, leaves, grad_out), torch.autograd.grad(dispatched, leaves, grad_out), strict=True
    ):
        assert torch.equal(ours, theirs)


@EVERY
@SPECS
def test_whoever_traces_sees_the_operators(name, spec):
    plan = pack(name, spec)
    x, values, bias, grad_out = samples(spec, plan)

    def train(x, values, bias, grad_out):
        leaves = [tensor.requires_grad_() for tensor in (x, values, bias)]
        return torch.autograd.grad(run(*leaves, plan, name), leaves, grad_out)

    graph = make_fx(train)(x, values, bias, grad_out).graph
    called = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert {f"lth_sparse.{operator}.default" for operator in ("forward", "grad_input", "grad_weight")} <= called
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        output = run(mode.from_tensor(x), mode.from_tensor(values), None, plan, name)
    assert (output.shape, output.stride()) == (grad_out.shape, grad_out.stride())
    seen = []

    class Watching(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return super().__torch_function__(function, types, args, kwargs)

    with torch.no_grad():
        assert torch.equal(run(x.as_subclass(Watching), values, bias, plan, name), run(x, values, bias, plan, name))
    assert "lth_sparse.forward.default" in seen


@EVERY
@SPECS
def test_a_plan_survives_the_way_through_a_schema(name, spec):
    backend, plan = registry.get(name), pack(name, spec)
    again = backend.unpack(list(plan.tensors()), LayerSpec.from_ints(spec.to_ints()))
    assert type(again) is type(plan)
    assert again.spec == spec
    assert all(ours is theirs for ours, theirs in zip(again.tensors(), plan.tensors(), strict=True))
    assert again.pattern.tensors() == plan.tensors()[: Pattern.TENSORS]


def test_specs_are_integers_and_back_always_the_same_object():
    assert CONV.to_ints() == (0, 4, 6, 3, 2, 2, 1, 1, 0, 1, 2, 2)
    assert LayerSpec.from_ints(CONV.to_ints()) == CONV
    assert LayerSpec.from_ints(LINEAR.to_ints()) == LINEAR
    assert LayerSpec.from_ints(CONV.to_ints()) is LayerSpec.from_ints(CONV.to_ints())


FORMATS = {
    "contiguous": lambda images: images,
    "channels_last": lambda images: images.to(memory_format=CHANNELS_LAST),
    "transposed": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda images: torch.cat([images, images], dim=3)[..., : images.shape[3]],
    "sliced channels_last": lambda images: FORMATS["sliced"](images.to(memory_format=CHANNELS_LAST)),
    "expanded": lambda images: images[:1, :1, :1, :1].expand(images.shape),
    "one image of an expanded batch": lambda images: images[:1].to(memory_format=CHANNELS_LAST).expand(images.shape),
}


@EVERY
@pytest.mark.parametrize("formatted", FORMATS.values(), ids=FORMATS.keys())
def test_memory_formats_follow_the_inputs(name, formatted):
    plan = pack(name, CONV)
    x, values, bias, grad_out = samples(CONV, plan)
    expected_output = run(x, values, bias, plan, name) if formatted(x).equal(x) else None
    x = formatted(x).requires_grad_()
    values.requires_grad_()
    output = run(x, values, bias, plan, name)
    kept = CHANNELS_LAST if formatted is FORMATS["channels_last"] else torch.contiguous_format
    assert memory_format(x) == kept
    assert output.is_contiguous(memory_format=kept)
    if expected_output is not None:
        torch.testing.assert_close(output, expected_output)
    # The other way round: grad_out decides, whatever x is.
    grad_out = formatted(grad_out)
    plain = torch.autograd.grad(output, (x, values), grad_out.contiguous(), retain_graph=True)
    grads = torch.autograd.grad(output, (x, values), grad_out)
    torch.testing.assert_close(grads, plain)
    assert plain[0].is_contiguous()
    assert grads[0].is_contiguous(memory_format=kept)
    assert grads[1].is_contiguous()


def test_a_backend_that_answers_in_another_format_is_put_right(monkeypatch):
    dense = registry.get("dense")
    for method in ("forward", "grad_input"):
        original = getattr(dense, method)
        monkeypatch.setattr(
            dense, method, lambda *args, original=original: original(*args).to(memory_format=CHANNELS_LAST)
        )
    plan = pack("dense", CONV)
    x, values, bias, grad_out = samples(CONV, plan, requires_grad=True)
    output = run(x, values, bias, plan, "dense")
    assert output.is_contiguous()
    assert torch.autograd.grad(output, x, grad_out)[0].is_contiguous()


@EVERY
@SPECS
def test_empty_batches(name, spec):
    plan = pack(name, spec)
    x, values, bias, grad_out = samples(spec, plan, requires_grad=True)
    x = x.detach()[:0].requires_grad_()
    output = run(x, values, bias, plan, name)
    assert output.shape == grad_out[:0].shape
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert not values.grad.any()
    assert not bias.grad.any()


@EVERY
@SPECS
@pytest.mark.parametrize("dispatched", [False, True])
def test_gradients_refuse_to_be_differentiated(name, spec, dispatched):
    plan = pack(name, spec)
    x, values, bias, _ = samples(spec, plan, requires_grad=True)
    if dispatched:
        output = torch.ops.lth_sparse.forward(x, values, bias, *last_arguments(plan, name))
    else:
        output = run(x, values, bias, plan, name)
    grads = torch.autograd.grad(output.square().sum(), (x, values), create_graph=True)
    for grad in grads:
        with pytest.raises(NotImplementedError, match=r"no second derivative: use lth_sparse\.densify"):
            grad.sum().backward(retain_graph=True)


def test_the_gradients_of_the_operators_refuse_too():
    plan = pack("dense", LINEAR)
    x, values, _, grad_out = samples(LINEAR, plan, requires_grad=True)
    last = last_arguments(plan, "dense")
    for gradient in (
        torch.ops.lth_sparse.grad_input(grad_out, values, x.shape, *last),
        torch.ops.lth_sparse.grad_weight(x, grad_out, *last),
    ):
        with pytest.raises(NotImplementedError, match="no second derivative"):
            gradient.sum().backward()


def test_the_gradient_of_the_bias_is_differentiable():
    """It is a sum of grad_out, so what is differentiated is the forward pass, once."""
    plan = pack("dense", LINEAR)
    x, values, bias, _ = samples(LINEAR, plan, torch.float64, requires_grad=True)

    def gradient(x, values, bias):
        output = run(x, values, bias, plan, "dense")
        return torch.autograd.grad(output.square().sum(), bias, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, (x, values, bias))


HUGE = torch.ones(1)


def nested(*shape, **options):
    return torch.nested.nested_tensor([torch.ones(shape[1:]), torch.ones(shape[1:])], **options)


def quantized(*shape):
    return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)


@EVERY
@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR|quantize)")
@pytest.mark.parametrize(
    ("spec", "x", "error", "message"),
    [
        (
            LayerSpec("conv2d", 4, 6),
            HUGE.expand(2**19, 4, 32, 32),
            ValueError,
            r"input: got shape \(524288, 4, 32, 32\), 2147483648 elements, expected fewer than 2\^31",
        ),
        (LINEAR, HUGE.expand(2**29, 5), ValueError, r"input: got .* 2684354560 elements, expected fewer than 2\^31"),
        (CONV, torch.ones(4, 8), ValueError, r"input: got shape \(4, 8\), expected \[N, 4, H, W\]"),
        (CONV, torch.ones(1, 3, 8, 8), ValueError, r"input: got shape \(1, 3, 8, 8\), expected \[N, 4, H, W\]"),
        (CONV, torch.ones(1, 4, 8, 8).long(), TypeError, r"input: got dtype torch.int64, expected torch.float32"),
        (CONV, torch.ones(1, 4, 8, 8).half(), TypeError, r"input: got dtype torch.float16, expected torch.float32"),
        (CONV, torch.ones(1, 4, 8, 8, device="meta"), ValueError, "input: got a tensor on meta, expected cpu"),
        (CONV, torch.ones(1, 4, 0, 8), ValueError, "expected no less than the kernel"),
        (CONV, torch.ones(1, 4, 8, 8).to_sparse(), TypeError, r"got layout torch.sparse_coo, .*: input.to_dense\(\)$"),
        (CONV, torch.ones(1, 4, 8, 8).to_mkldnn(), TypeError, r"got layout torch._mkldnn, .*: input.to_dense\(\)$"),
        (CONV, nested(2, 4, 8, 8), TypeError, r"got a nested tensor, .*: torch.nested.to_padded_tensor\(input, 0.0\)$"),
        (CONV, np.ones((1, 4, 8, 8), np.float32), TypeError, r"input: got ndarray, .*: torch.as_tensor\(input\)$"),
        (CONV, quantized(1, 4, 8, 8), TypeError, r"got dtype torch.qint8, .* the layer's own: input.dequantize\(\)$"),
        (LINEAR, torch.ones(2, 5).to_sparse(), TypeError, r"got layout torch.sparse_coo, .*: input.to_dense\(\)$"),
        (LINEAR, torch.ones(2, 5).to_sparse_csr(), TypeError, r"got layout torch.sparse_csr, .*: input.to_dense\(\)$"),
        (LINEAR, nested(2, 5), TypeError, r"got a nested tensor, .*: torch.nested.to_padded_tensor\(input, 0.0\)$"),
        (LINEAR, nested(2, 5, layout=torch.jagged), TypeError, "input: got a nested tensor"),
        (LINEAR, [[1.0] * 5], TypeError, r"input: got list, expected a tensor: torch.as_tensor\(input\)$"),
        (LINEAR, None, TypeError, "input: got NoneType, expected a tensor"),
        (LINEAR, quantized(2, 5), TypeError, r"got dtype torch.qint8, .* the layer's own: input.dequantize\(\)$"),
        (LINEAR, torch.ones(2, 5).int(), TypeError, r"got dtype torch.int32, .*: input.to\(torch.float32\)$"),
        (LINEAR, torch.ones(2, 4), ValueError, r"input: got shape \(2, 4\), expected \[..., 5\]"),
        (LINEAR, torch.tensor(1.0), ValueError, r"input: got shape \(\), expected \[..., 5\]"),
    ],
)
def test_bad_input_is_refused_by_name(name, spec, x, error, message):
    plan = pack(name, spec)
    values = torch.randn(plan.pattern.nnz)
    with pytest.raises(error, match=message):
        run(x, values, None, plan, name)


@pytest.mark.parametrize("relu", [True, False])
def test_too_many_numbers_are_refused_with_relu_too(relu):
    plan = pack("dense", LINEAR)
    with torch.no_grad(), pytest.raises(ValueError, match=r"elements, expected fewer than 2\^31"):
        ops.linear(HUGE.expand(2**29, 5), torch.randn(plan.pattern.nnz), None, plan, "dense", relu)


@EVERY
def test_values_that_do_not_fit_the_plan_are_refused(name):
    plan = pack(name, LINEAR)
    with pytest.raises(ValueError, match=r"values: got shape \(99,\), expected \(\d+,\), the live weights"):
        run(torch.ones(2, 5), torch.ones(99), None, plan, name)


def test_plans_of_subclasses_carry_their_own_tensors_last(monkeypatch):
    monkeypatch.setattr(cpu_operators, "UNUSABLE", "not built")
    plan = pack("dense", LINEAR)
    assert plan.tensors() == (*plan.pattern.tensors(), plan.flat_positions)
    base = Plan.from_tensors(plan.pattern.tensors(), LINEAR)
    assert base.tensors() == plan.pattern.tensors()
    assert torch.equal(base.pattern.flat_positions, plan.flat_positions)


@EVERY
@pytest.mark.parametrize(
    "shape", [(3, 4, 9000, 9000), (3, 4000, 8, 7), (0, 4, 8, 7), (3, 4, 8), (3, 4, 0, 7), (-1, 4, 8, 7), ()]
)
def test_the_dispatcher_refuses_shapes_that_do_not_fit(name, shape):
    plan = pack(name, CONV)
    x, values, _, grad_out = samples(CONV, plan)
    operators, last = torch.ops.lth_sparse, last_arguments(plan, name)
    with pytest.raises((ValueError, RuntimeError), match=r"got shape|negative|at least a pixel"):
        operators.grad_input(grad_out, values, shape, *last)
    if min(shape, default=0) >= 0 and np.prod(shape) < 1e6:
        with pytest.raises(ValueError, match="got shape"):
            operators.grad_weight(torch.ones(shape), grad_out, *last)
    for change, sentence in (
        ({"x": x[:, :3]}, "input: got shape"),
        ({"x": x.double()}, "values: got dtype torch.float32, expected torch.float64"),
        ({"values": values[1:]}, r"values: got shape"),
        ({"bias": torch.ones(7)}, r"bias: got shape \(7,\), expected \(6,\)"),
        (
            {"plan": [torch.ones(6, 2, 3, 3, dtype=torch.bool), *last[0][1:]]},
            r"plan: got a mask torch.bool of shape \(6, 2, 3, 3\)",
        ),
        ({"plan": [last[0][0], last[0][1].long(), *last[0][2:]]}, "plan: got row_offsets of torch.int64"),
        ({"spec": [*last[1][:-1], 3]}, "expected positive numbers, and channels that the groups divide"),
    ):
        given = {"x": x, "values": values, "bias": None, "plan": last[0], "spec": last[1], "backend": name}
        with pytest.raises(ValueError, match=sentence):
            operators.forward(*(given | change).values())
