"""`layer.weight`: assigned, drawn anew, computed with; and refused where a write in place would be lost."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from lth_sparse.nn import SparseConv2d, SparseLinear, densify


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


def make_conv():
    dense = nn.Conv2d(4, 6, 3)
    return SparseConv2d.from_dense(dense, torch.rand(dense.weight.shape) < 0.4)


def make_linear():
    dense = nn.Linear(10, 6)
    return SparseLinear.from_dense(dense, torch.rand(dense.weight.shape) < 0.4)


BOTH = pytest.mark.parametrize("make", [make_conv, make_linear])
UNPRUNED = pytest.mark.parametrize("make", [make_linear, lambda: SparseLinear(10, 6)], ids=["pruned", "unpruned"])


@BOTH
@pytest.mark.parametrize(
    "kind",
    [lambda w: w, nn.Parameter, lambda w: w.requires_grad_() * 1],
    ids=["tensor", "parameter", "with a gradient"],
)
def test_a_weight_is_assigned_at_the_live_positions(make, kind):
    layer = make()
    values, weight = layer.values, torch.randn(layer.mask.shape)
    layer.weight = kind(weight.clone())
    assert layer.values is values
    assert values.is_leaf
    assert values.requires_grad
    assert torch.equal(layer.weight, torch.where(layer.mask, weight, 0.0))
    assert [name for name, _ in layer.named_parameters()] == ["values", "bias"]


def test_a_parameter_that_is_assigned_says_whether_it_is_trained():
    layer = make_linear()
    layer.weight = nn.Parameter(torch.ones(6, 10), requires_grad=False)
    assert not layer.values.requires_grad
    layer.weight = torch.zeros(6, 10)
    assert not layer.values.requires_grad
    layer.weight = nn.Parameter(torch.ones(6, 10))
    assert layer.values.requires_grad


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.ones(10, 6), ValueError, r"weight: got shape \(10, 6\), expected \(6, 10\)"),
        (torch.ones(6, 10).double(), TypeError, "weight: got dtype torch.float64, expected torch.float32"),
        (torch.ones(6, 10, device="meta"), ValueError, "weight: got a tensor on meta, expected cpu"),
        (None, TypeError, "weight: got NoneType, expected a tensor"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(weight, error, message):
    layer = make_linear()
    before = layer.values.clone()
    with pytest.raises(error, match=message):
        layer.weight = weight
    assert torch.equal(layer.values, before)


@pytest.mark.parametrize(
    ("make", "dense_class", "sizes"), [(make_conv, nn.Conv2d, (4, 6, 3)), (make_linear, nn.Linear, (10, 6))]
)
def test_parameters_are_drawn_as_the_dense_layer_draws_them(make, dense_class, sizes):
    layer = make()
    values, bias, mask = layer.values, layer.bias, layer.mask.clone()
    torch.manual_seed(5)
    dense = dense_class(*sizes)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    layer.reset_parameters()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layer.weight, dense.weight * mask)
    assert torch.equal(layer.bias, dense.bias)
    assert layer.values is values
    assert layer.bias is bias
    assert torch.equal(layer.mask, mask)


def test_an_unpruned_layer_of_the_meta_device_is_drawn_anew():
    layer = SparseLinear(10, 6, device="meta").to_empty(device="cpu")
    layer.mask.fill_(False)
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    assert torch.equal(layer.weight, nn.Linear(10, 6).weight)


def no_grad(write):
    def call(layer):
        with torch.no_grad():
            write(layer)

    return call


WRITES = {
    "copy_": no_grad(lambda layer: layer.weight.copy_(torch.ones(6, 10))),
    "zero_, where PyTorch records": lambda layer: layer.weight.zero_(),
    "entries": no_grad(lambda layer: layer.weight.__setitem__(0, 0)),
    "data of it": lambda layer: layer.weight.data.copy_(torch.ones(6, 10)),
    "assigned data": lambda layer: setattr(layer.weight, "data", torch.ones(6, 10)),
    "assigned grad": lambda layer: setattr(layer.weight, "grad", torch.ones(6, 10)),
    "row": no_grad(lambda layer: layer.weight[0].zero_()),
    "detached view": lambda layer: layer.weight.detach().view(-1)[3:].fill_(1),
    "chunk": no_grad(lambda layer: layer.weight.chunk(2)[1].zero_()),
    "row in a loop": no_grad(lambda layer: [row.zero_() for row in layer.weight]),
    "transposed": no_grad(lambda layer: layer.weight.T.zero_()),
    "init": lambda layer: nn.init.kaiming_normal_(layer.weight),
    "init, as PyTorch hands it over": lambda layer: nn.init.uniform_(layer.weight),
    "init of a copy": lambda layer: nn.init.orthogonal_(layer.weight),
    "out": no_grad(lambda layer: torch.mul(torch.ones(6, 10), 2, out=layer.weight)),
    "outs": no_grad(
        lambda layer: torch.max(torch.ones(6, 10, 2), 2, out=(layer.weight, torch.ones(6, 10, dtype=torch.long)))
    ),
    "operator": no_grad(lambda layer: layer.weight.detach().__imul__(2)),
    "foreach": no_grad(lambda layer: torch._foreach_mul_([layer.weight], 0.0)),
    "aten": no_grad(lambda layer: torch.ops.aten.mul_.Scalar(layer.weight, 0.0)),
    "inplace": no_grad(lambda layer: nn.functional.relu(layer.weight, inplace=True)),
    "inference mode": torch.inference_mode()(lambda layer: layer.weight.zero_()),
    "vector_to_parameters": lambda layer: nn.utils.vector_to_parameters(torch.zeros(60), [layer.weight]),
}


@UNPRUNED
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_in_place_is_refused_with_a_sentence(make, write):
    layer = make()
    before = layer.values.clone()
    with pytest.raises(RuntimeError, match=r"weight: got a write in place .*assign the whole weight \(layer\.weight ="):
        write(layer)
    assert torch.equal(layer.values, before)


LOST_WITH_THE_COPY = {
    "hook": lambda weight: weight.register_hook(lambda gradient: 2 * gradient),
    "hook after accumulation": lambda weight: weight.register_post_accumulate_grad_hook(lambda weight: None),
    "attribute": lambda weight: setattr(weight, "no_decay", True),
    "private attribute": lambda weight: setattr(weight, "_no_weight_decay", True),
    "frozen": lambda weight: weight.requires_grad_(False),
    "frozen by assignment": lambda weight: setattr(weight, "requires_grad", False),
}


@UNPRUNED
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("change", LOST_WITH_THE_COPY.values(), ids=LOST_WITH_THE_COPY)
def test_what_would_be_lost_with_the_copy_is_refused(make, trained, change):
    layer = make().requires_grad_(trained)
    with pytest.raises(RuntimeError, match=r"to a copy that layer\.weight makes at each access, .* layer\.values"):
        change(layer.weight)


@UNPRUNED
def test_the_gradient_of_a_weight_is_that_of_the_values_in_its_places(make):
    layer, x = make(), torch.randn(3, 10)
    assert layer.weight.grad is None
    layer(x).square().sum().backward()
    dense = layer.to_dense()
    dense(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, dense.weight.grad * layer.mask)
    before = layer.values.grad.clone()
    with pytest.raises(RuntimeError, match="weight: got a write in place"):
        nn.utils.clip_grad_norm_([layer.weight], 0.1)
    with pytest.raises(RuntimeError, match="weight: got a write in place"):
        layer.weight.grad.zero_()
    assert torch.equal(layer.values.grad, before)
    layer.requires_grad_(False).zero_grad()
    assert layer.weight.grad is None


def test_an_optimizer_refuses_the_weight():
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        torch.optim.SGD([make_linear().weight], 0.1)


def saved_and_loaded(weight):
    file = io.BytesIO()
    torch.save({"w": weight.detach()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["w"]


COMPUTED = {
    "sum": lambda w: w.abs().sum(),
    "clone": torch.clone,
    "times a scalar": lambda w: 2 * w,
    "F.linear": lambda w: nn.functional.linear(torch.ones(10), w),
    "cat": lambda w: torch.cat([w, w]),
    "norm": torch.linalg.norm,
    "deepcopy": lambda w: copy.deepcopy(w.detach()),
    "saved": saved_and_loaded,
    "an inner copy": lambda w: torch.zeros(6, 10).copy_(w),
}


@UNPRUNED
@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED.keys())
def test_what_is_computed_with_a_weight_is_a_plain_tensor(make, compute):
    layer = make()
    plain = layer.weight.detach().numpy().copy()
    result = compute(layer.weight)
    assert type(result) is Tensor
    assert torch.equal(result, compute(torch.from_numpy(plain)))


@UNPRUNED
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_parameter_made_of_a_weight_is_a_plain_parameter_of_its_own(make, requires_grad):
    layer = make()
    before = layer.values.clone()
    dense = nn.Linear(10, 6)
    dense.weight = nn.Parameter(layer.weight, requires_grad)
    assert type(dense.weight) is nn.Parameter
    assert (dense.weight.is_leaf, dense.weight.requires_grad) == (True, requires_grad)
    assert type(copy.deepcopy(dense).weight) is nn.Parameter
    with torch.no_grad():
        dense.weight.add_(1)
    assert torch.equal(layer.values, before)


def test_a_weight_is_differentiated():
    layer = make_linear()
    weight = layer.weight
    assert weight.grad_fn is not None
    assert torch.equal(torch.autograd.grad(weight.square().sum(), weight)[0], 2 * weight)
    weight.retain_grad()
    weight.square().sum().backward()
    assert torch.equal(weight.grad, 2 * weight)
    torch.testing.assert_close(layer.values.grad, 2 * layer.values)


@UNPRUNED
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_a_regulariser_of_the_weight_compiles(make, compiler):
    layer, x = make(), torch.randn(3, 10)

    def loss(x):
        return layer(x).square().sum() + layer.weight.abs().sum()

    expected = torch.autograd.grad(loss(x), layer.values)[0]
    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), layer.values)[0], expected)


@UNPRUNED
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_function_is_given_a_weight(make):
    layer = make()
    compiled = torch.compile(lambda weight: 2 * weight.abs(), fullgraph=True)
    assert type(compiled(layer.weight)) is Tensor
    torch.testing.assert_close(compiled(layer.weight), 2 * layer.weight.abs())


@BOTH
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (
            weight_norm,
            'weight: a sparse layer has no such parameter.*before lth_sparse.sparsify, or give or parametrize "values"',
        ),
        (spectral_norm, "weight: a sparse layer has no such parameter"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.2), "weight: a sparse layer has no such parameter"),
        (lambda layer: layer.register_parameter("weight", None), "weight: a sparse layer has no such parameter"),
        (parametrizations.weight_norm, "weight: a sparse layer has no such parameter"),
        (parametrizations.spectral_norm, "weight: a sparse layer has no such parameter"),
        (parametrizations.orthogonal, "weight: a sparse layer has no such parameter"),
        (
            lambda layer: parametrize.register_parametrization(layer, "weight", Twice()),
            "weight: a sparse layer has no such parameter",
        ),
    ],
)
def test_tools_that_need_a_parameter_called_weight_say_so(make, tool, message):
    layer = make()
    before = layer.state_dict()
    with pytest.raises(ValueError, match=message):
        tool(layer)
    assert layer.state_dict().keys() == before.keys()


class Twice(nn.Module):
    def forward(self, values):
        return 2 * values

    def right_inverse(self, values):
        return values / 2


def test_values_are_parametrized():
    layer, x = make_linear(), torch.randn(3, 10)
    expected = layer(x)
    parametrize.register_parametrization(layer, "values", Twice())
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert layer.parametrizations["values"].original.grad is not None
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(x), expected)
    assert str(layer.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    with pytest.raises(ValueError, match='weight: got one to assign while "values" is made of another parameter'):
        layer.weight = torch.ones(6, 10)
    with pytest.raises(ValueError, match=r'got a parametrization of "values".*remove_parametrizations'):
        densify(copy.deepcopy(layer))
    parametrize.remove_parametrizations(layer, "values")
    torch.testing.assert_close(layer(x), expected)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "values"]
