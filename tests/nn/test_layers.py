"""SparseConv2d and SparseLinear as drop-ins for nn.Conv2d and nn.Linear."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lth_sparse.backends import registry
from lth_sparse.nn import SparseConv2d, SparseLinear, sparsify
from lth_sparse.system.errors import BackendError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def random_mask(weight, density=0.4):
    return torch.rand(weight.shape) < density


def make_conv(backend="auto", **options):
    dense = nn.Conv2d(4, 6, 3, padding=1, **options)
    return SparseConv2d.from_dense(dense, random_mask(dense.weight), backend)


def make_linear(backend="auto", **options):
    dense = nn.Linear(10, 6, **options)
    return SparseLinear.from_dense(dense, random_mask(dense.weight), backend)


BACKENDS = [name for name, reason in registry.backends().items() if not reason]
BOTH = pytest.mark.parametrize(("make", "shape"), [(make_conv, (2, 4, 7, 7)), (make_linear, (2, 10))])

CONVOLUTIONS = {
    "plain": {},
    "strided": {"stride": (2, 1)},
    "padded": {"padding": (1, 2)},
    "same": {"padding": "same"},
    "same, even kernel": {"padding": "same", "kernel_size": (2, 4)},
    "same, even kernel, dilated, reflect": {
        "padding": "same",
        "kernel_size": (4, 2),
        "dilation": (1, 3),
        "padding_mode": "reflect",
    },
    "valid": {"padding": "valid"},
    "dilated": {"dilation": (2, 1), "padding": 2},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4, "out_channels": 8},
    "no bias": {"bias": False},
    "reflect": {"padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"padding": (2, 1), "padding_mode": "replicate"},
    "circular": {"padding": (2, 1), "padding_mode": "circular"},
    "1x1": {"kernel_size": 1},
}


def assert_trains_like(sparse, dense, mask, x):
    """Outputs and all gradients are those of the dense layer, with its weight masked."""
    with torch.no_grad():
        dense.weight.mul_(mask)
    dense.zero_grad()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(each) for layer, each in zip((sparse, dense), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    grad_out = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(grad_out)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(sparse.values.grad, dense.weight.grad[mask])
    if dense.bias is not None:
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)


# What nn.Conv2d, not ours, says about padding='same' with an even kernel.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("shape", [(3, 4, 9, 8), (1, 4, 9, 8), (4, 9, 8)], ids=str)
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_conv2d_is_the_masked_dense_layer(options, shape):
    options = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "dtype": torch.float64, **options}
    dense = nn.Conv2d(**options)
    mask = random_mask(dense.weight)
    sparse = SparseConv2d(**options, mask=mask)
    sparse.load_state_dict(dense.state_dict())
    assert_trains_like(sparse, dense, mask, torch.randn(shape, dtype=torch.float64))
    assert_trains_like(SparseConv2d.from_dense(dense, mask), dense, mask, torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 10), (10,), (2, 3, 10), (0, 10)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_masked_dense_layer(bias, shape):
    dense = nn.Linear(10, 6, bias, dtype=torch.float64)
    mask = random_mask(dense.weight)
    sparse = SparseLinear.from_dense(dense, mask)
    assert_trains_like(sparse, dense, mask, torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("dense", "shape"),
    [
        (nn.Linear(10, 6), (2, 10)),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 7)),
        (nn.Conv2d(4, 6, (2, 4), stride=(2, 1), dilation=(1, 2), groups=2, bias=False), (3, 4, 7, 9)),
        (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"), (4, 5, 6)),
    ],
    ids=["linear", "conv2d", "grouped", "circular"],
)
def test_gradcheck(dense, shape, density, backend):
    dense = copy.deepcopy(dense).double()
    sparse_class = SparseLinear if type(dense) is nn.Linear else SparseConv2d
    layer = sparse_class.from_dense(dense, random_mask(dense.weight, density), backend)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x, *parameters_now):
        return torch.func.functional_call(layer, dict(zip(parameters, parameters_now, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@BOTH
def test_only_the_gradients_that_are_needed_are_computed(make, shape, monkeypatch):
    layer = make("dense")
    dense_class = type(registry.get("dense"))
    calls = []
    for name in ("grad_input", "grad_weight"):
        method = getattr(dense_class, name)
        monkeypatch.setattr(
            dense_class, name, lambda *args, name=name, method=method: calls.append(name) or method(*args)
        )
    layer(torch.randn(shape)).sum().backward()
    assert calls == ["grad_weight"]
    calls.clear()
    layer.requires_grad_(False)
    layer(torch.randn(shape, requires_grad=True)).sum().backward()
    assert calls == ["grad_input"]


@BOTH
def test_double_backward_says_that_it_is_not_supported(make, shape):
    layer = make()
    x = torch.randn(shape, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


@BOTH
def test_the_parameter_and_the_optimizer_state_have_the_size_of_the_ticket(make, shape):
    layer = make()
    nnz = int(layer.mask.sum())
    assert layer.values.shape == (nnz,)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"values": (nnz,), "bias": (6,)}
    optimizer = torch.optim.Adam(layer.parameters())
    before = layer.weight.detach()
    layer(torch.randn(shape)).square().sum().backward()
    optimizer.step()
    assert layer.values.grad.shape == (nnz,)
    assert optimizer.state[layer.values]["exp_avg"].shape == (nnz,)
    moved = layer.weight != before
    assert not moved[~layer.mask].any()
    assert moved[layer.mask].any()


@BOTH
def test_weight_is_zero_where_pruned_and_carries_gradients(make, shape):
    layer = make()
    assert (layer.weight[~layer.mask] == 0).all()
    assert torch.equal(layer.weight[layer.mask], layer.values)
    layer.weight.square().sum().backward()
    torch.testing.assert_close(layer.values.grad, 2 * layer.values.detach())


def test_initial_weights_are_those_of_the_dense_layers():
    for sparse_class, dense_class, sizes in (
        (SparseConv2d, nn.Conv2d, (4, 6, 3)),
        (SparseLinear, nn.Linear, (10, 6)),
    ):
        torch.manual_seed(1)
        dense = dense_class(*sizes)
        torch.manual_seed(1)
        sparse = sparse_class(*sizes)
        assert torch.equal(sparse.weight, dense.weight)
        assert torch.equal(sparse.bias, dense.bias)
        assert sparse.sparsity == 0.0
        assert sparse.mask.all()


@BOTH
def test_to_dense_gives_the_layer_back_without_touching_the_random_state(make, shape):
    layer = make().eval().requires_grad_(False)
    state = torch.get_rng_state()
    dense = layer.to_dense()
    assert torch.equal(torch.get_rng_state(), state)
    assert type(dense) in (nn.Conv2d, nn.Linear)
    x = torch.randn(shape)
    torch.testing.assert_close(dense(x), layer(x))
    assert not dense.training
    assert not any(parameter.requires_grad for parameter in dense.parameters())


def test_to_dense_keeps_every_setting():
    layer = SparseConv2d(4, 6, (2, 3), 2, "valid", (1, 2), 2, False, "circular", dtype=torch.float64)
    expected = nn.Conv2d(4, 6, (2, 3), 2, "valid", (1, 2), 2, False, "circular", dtype=torch.float64)
    assert repr(layer.to_dense()) == repr(expected)
    assert layer.to_dense().weight.dtype == torch.float64


@BOTH
def test_from_dense_copies_and_leaves_the_dense_layer_alone(make, shape):
    dense = make().to_dense().eval()
    dense.weight.requires_grad_(False)
    before = dense.weight.clone()
    mask = random_mask(dense.weight)
    sparse = type(make()).from_dense(dense, mask)
    assert not sparse.training
    assert not sparse.values.requires_grad
    assert sparse.bias.requires_grad
    kept = mask.clone()
    mask[:] = True
    with torch.no_grad():
        sparse.values.zero_()
        sparse.bias.zero_()
    assert torch.equal(sparse.mask, kept)
    assert torch.equal(dense.weight, before)
    assert dense.bias.any()


@BOTH
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_equal_and_independent(make, shape, copied):
    layer = make()
    x = torch.randn(shape)
    expected = layer(x)
    if copied == "deepcopy":
        twin = copy.deepcopy(layer)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        twin.values.zero_()
        twin.bias.zero_()
    assert torch.equal(layer(x), expected)
    assert not twin(x).any()


@BOTH
def test_from_dense_copies_an_unpruned_layer_too(make, shape):
    dense = make().to_dense()
    sparse = type(make()).from_dense(dense, None)
    with torch.no_grad():
        sparse.values.zero_()
    assert dense.weight.any()


@BOTH
def test_a_pickle_holds_no_indices(make, shape):
    layer = make()
    before = len(pickle.dumps(layer))
    layer(torch.randn(shape))
    assert len(pickle.dumps(layer)) == before


@BOTH
def test_dtype_moves(make, shape):
    layer = make()
    x = torch.randn(shape, dtype=torch.float64)
    single = layer(x.float())
    layer.double()
    assert (layer.values.dtype, layer.mask.dtype) == (torch.float64, torch.bool)
    torch.testing.assert_close(layer(x).float(), single)


@BOTH
def test_a_dtype_that_the_backend_does_not_know_is_refused_after_the_move(make, shape, monkeypatch):
    layer = make("dense")
    layer(torch.randn(shape))

    def only_single(self, spec, dtype, device):
        return dtype == torch.float32, f"{dtype} is not float32"

    monkeypatch.setattr(type(registry.get("dense")), "supports", only_single)
    with pytest.raises(BackendError, match=r"torch\.float64 is not float32"):
        layer.double()(torch.randn(shape, dtype=torch.float64))


@pytest.fixture
def packed(monkeypatch):
    """The specs of the layers that the dense backend has packed so far."""
    specs = []
    dense_class = type(registry.get("dense"))
    pack = dense_class.pack
    monkeypatch.setattr(dense_class, "pack", lambda self, *args: specs.append(args[1]) or pack(self, *args))
    return specs


@BOTH
def test_packing_is_done_once_and_before_the_forward_pass(make, shape, packed):
    layer = make(backend="dense")
    assert packed == [layer.spec]
    layer(torch.randn(shape)).sum().backward()
    layer.double().float().requires_grad_(False).eval()
    layer.load_state_dict(layer.state_dict())
    layer(torch.randn(shape))
    assert len(packed) == 1
    layer.load_state_dict(make(backend="dense").state_dict())
    assert len(packed) == 3
    copy.deepcopy(layer)
    assert len(packed) == 4
    layer.backend = "dense"
    assert len(packed) == 5
    layer(torch.randn(shape))
    assert len(packed) == 5


def test_sparsify_packs_every_layer_once(packed):
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 3))
    sparsify(model, {"0": random_mask(model[0].weight), "2": random_mask(model[2].weight)}, backend="dense")
    assert packed == [model[0].spec, model[2].spec]


@BOTH
def test_a_pickle_opens_where_its_backend_does_not_work(make, shape, monkeypatch):
    layer = make(backend="dense")
    x = torch.randn(shape)
    expected, pickled = layer(x), pickle.dumps(layer)
    monkeypatch.setitem(registry._unusable, "dense", "it was switched off")
    twin = pickle.loads(pickled)
    with pytest.raises(BackendError, match="it was switched off"):
        twin(x)
    monkeypatch.undo()
    assert torch.equal(twin(x), expected)


@BOTH
def test_layers_pass_over_the_meta_device(make, shape):
    layer, other = make(), make()
    x = torch.randn(shape)
    layer.to("meta")
    with pytest.raises(BackendError, match="on the meta device"):
        layer(x.to("meta"))
    layer.to_empty(device="cpu").load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))


def test_layers_can_be_made_on_the_meta_device():
    layer = SparseConv2d(4, 6, 3, device="meta")
    assert "sparsity=0.00%" in repr(layer)
    source = make_conv()
    layer.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert torch.equal(layer.weight, source.weight)
    with pytest.raises(ValueError, match="mask: got one on the meta device"):
        SparseLinear(4, 3, mask=torch.ones(3, 4, dtype=torch.bool, device="meta"), device="meta")


def bytes_of_training(model, make_optimizer):
    """Of the parameters, their gradients and the optimizer's state, after a step."""
    optimizer = make_optimizer(model.parameters())
    model(torch.randn(2, 16, 8, 8)).square().sum().backward()
    optimizer.step()
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    parameters = list(model.parameters())
    return sum(each.numel() * each.element_size() for each in [*parameters, *[p.grad for p in parameters], *states])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make_optimizer",
    [lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9), torch.optim.Adam],
    ids=["momentum", "adam"],
)
def test_training_memory_falls_with_density(make_optimizer, backend):
    def model():
        return nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 32))

    dense = bytes_of_training(model(), make_optimizer)
    for density in (0.5, 0.05):
        pruned = model()
        masks = {name: random_mask(pruned.get_submodule(name).weight, density) for name in ("0", "3")}
        share = bytes_of_training(sparsify(pruned, masks, backend), make_optimizer) / dense
        assert share == pytest.approx(density, abs=0.01)


@BOTH
def test_the_indices_of_a_layer_are_smaller_than_its_dense_weight(make, shape):
    layer = type(make())(200, 100, *([3] if make is make_conv else []), backend="dense")
    layer = type(layer).from_dense(layer.to_dense(), random_mask(layer.mask, 0.05), "dense")
    tensors = layer.plan.tensors()
    assert tensors[0] is layer.mask
    assert sum(each.numel() * each.element_size() for each in tensors[1:]) < 0.2 * 4 * layer.mask.numel()


@BOTH
def test_autocast_computes_in_its_dtype_and_trains_in_the_layers(make, shape):
    layer = make()
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        expected = layer.to_dense()(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert layer.values.grad.dtype == torch.float32


def test_channels_last_models_work():
    layer = make_conv()
    x = torch.randn(2, 4, 7, 7)
    expected = layer(x)
    output = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, expected)


@BOTH
def test_state_dict_round_trip_brings_the_mask_along(make, shape):
    layer, other = make(), make()
    assert not torch.equal(layer.mask, other.mask)
    parameter = other.values
    x = torch.randn(shape)
    other(x).sum().backward()
    other.load_state_dict(layer.state_dict())
    assert other.values is parameter
    assert other.values.grad is None
    assert torch.equal(other(x), layer(x))
    assert torch.equal(other.mask, layer.mask)
    with torch.no_grad():
        other.values.zero_()
        other.mask.zero_()
    assert layer.values.any()
    assert layer.mask.any()


@BOTH
def test_state_dict_can_be_assigned(make, shape):
    layer, other = make(), make()
    other.load_state_dict(layer.state_dict(), assign=True)
    x = torch.randn(shape)
    assert torch.equal(other(x), layer(x))


@BOTH
def test_a_dense_state_dict_is_read_at_the_live_positions(make, shape):
    layer = make()
    dense = layer.to_dense()
    nn.init.normal_(dense.weight)
    mask = layer.mask.clone()
    assert str(layer.load_state_dict(dense.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(layer.mask, mask)
    assert torch.equal(layer.weight, torch.where(mask, dense.weight, 0.0))
    assert torch.equal(layer.bias, dense.bias)


@BOTH
def test_a_pruned_state_dict_brings_its_mask(make, shape):
    layer = make()
    dense = layer.to_dense()
    nn.init.normal_(dense.weight)
    prune.random_unstructured(dense, "weight", amount=0.6)
    prune.random_unstructured(dense, "bias", amount=0.5)
    layer.load_state_dict(dense.state_dict())
    assert torch.equal(layer.mask, dense.weight_mask.bool())
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), dense(x))


def test_state_dicts_load_in_the_middle_of_a_model():
    dense = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 3))
    sparse = nn.Sequential(SparseConv2d(4, 6, 3), nn.Flatten(), SparseLinear(6, 3))
    sparse.load_state_dict(dense.state_dict())
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(sparse(x), dense(x))


def test_a_state_dict_that_does_not_fit_is_refused_by_name():
    model = nn.Sequential(SparseLinear(4, 3))
    with pytest.raises(RuntimeError, match=r"0\.weight: got shape \(3, 5\), expected \(3, 4\)"):
        model.load_state_dict(nn.Sequential(nn.Linear(5, 3)).state_dict())
    with pytest.raises(RuntimeError, match=r"0\.mask: got shape \(3, 5\), expected the weight's, \(3, 4\)"):
        model.load_state_dict(nn.Sequential(SparseLinear(5, 3)).state_dict())
    state = model.state_dict()
    state["0.mask"] = state["0.mask"].float()
    with pytest.raises(RuntimeError, match=r"0\.mask: got dtype torch.float32"):
        model.load_state_dict(state)
    del state["0.mask"]
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.mask"):
        model.load_state_dict(state)


def test_backend_is_settable_and_checked():
    layer = SparseLinear(4, 3)
    assert layer.backend == "auto"
    layer.backend = "dense"
    assert layer.backend == "dense"
    assert layer(torch.ones(4)).shape == (3,)
    with pytest.raises(BackendError, match='unknown backend "dence", did you mean "dense"'):
        layer.backend = "dence"
    assert layer.backend == "dense"
    with pytest.raises(BackendError, match='unknown backend "dence"'):
        SparseConv2d(1, 1, 1, backend="dence")


def test_repr_says_what_the_layer_is():
    mask = torch.zeros(6, 2, 3, 3, dtype=torch.bool)
    mask[0, 0] = True
    layer = SparseConv2d(4, 6, 3, groups=2, padding="same", bias=False, padding_mode="circular", mask=mask)
    assert repr(layer) == (
        "SparseConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding='same', groups=2, bias=False, "
        "padding_mode=circular, sparsity=91.67%, backend=auto)"
    )
    assert repr(SparseLinear(4, 3)) == (
        "SparseLinear(in_features=4, out_features=3, bias=True, sparsity=0.00%, backend=auto)"
    )


CONV = nn.Conv2d(4, 6, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: make_conv()(torch.ones(4, 4)),
            ValueError,
            r"input: got shape \(4, 4\), expected \[N, 4, H, W\]",
        ),
        (lambda: make_conv()(torch.ones(1, 3, 4, 4)), ValueError, r"input: got shape \(1, 3, 4, 4\)"),
        (
            lambda: make_conv()(torch.ones(4, 4, 4).double()),
            TypeError,
            r"input: got dtype torch.float64, expected",
        ),
        (
            lambda: make_conv()(torch.ones(4, 4, 4).int()),
            TypeError,
            r"input: got dtype torch.int32, expected",
        ),
        (lambda: make_conv()(torch.ones(4, 4, 4, device="meta")), ValueError, "input: got a tensor on meta"),
        (
            lambda: SparseConv2d(4, 6, 3)(torch.ones(1, 4, 2, 5)),
            ValueError,
            "expected no less than the kernel",
        ),
        (
            lambda: make_linear()(torch.ones(2, 9)),
            ValueError,
            r"input: got shape \(2, 9\), expected \[..., 10\]",
        ),
        (lambda: make_linear()(torch.tensor(1.0)), ValueError, r"input: got shape \(\), expected"),
        (
            lambda: make_linear()(torch.ones(10).half()),
            TypeError,
            r"input: got dtype torch.float16, expected",
        ),
        (
            lambda: SparseConv2d(4, 6, 3, mask=torch.ones(6, 4, 3, 2).bool()),
            ValueError,
            r"mask: got shape \(6, 4, 3, 2\), expected the weight's, \(6, 4, 3, 3\)",
        ),
        (
            lambda: SparseLinear(4, 3, mask=torch.ones(3, 4)),
            TypeError,
            "mask: got dtype torch.float32, expected",
        ),
        (lambda: SparseLinear(4, 3, mask=[[1]]), TypeError, "mask: got list, expected a tensor"),
        (
            lambda: SparseLinear(4, 3, mask=torch.ones(3, 4, device="meta").bool()),
            ValueError,
            "mask: got a tensor on meta, expected cpu, where the weight is",
        ),
        (
            lambda: SparseLinear.from_dense(CONV, None),
            TypeError,
            "module: got Conv2d, expected torch.nn.Linear",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
