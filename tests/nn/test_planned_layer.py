"""A mask that changes by whatever way: the new one counts at the next forward pass, or that pass says why not."""

import copy

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse.backends import registry
from lth_sparse.nn import SparseConv2d, SparseLinear, densify, sparsify
from lth_sparse.plans.pattern import Pattern

BACKENDS = [name for name, reason in registry.backends().items() if not reason]
EVERY = pytest.mark.parametrize("backend", BACKENDS)
LIVE = 20


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


def random_mask(live=LIVE):
    return (torch.randperm(48) < live).view(6, 8)


def make(backend="auto"):
    return SparseLinear.from_dense(nn.Linear(8, 6), random_mask(), backend)


def assert_of_one_mind(layer):
    """What it computes, its dense weight, its state dict, its dense copy and its copy are one network."""
    x, state = torch.randn(3, 8), layer.state_dict()
    weight = torch.zeros(6, 8).masked_scatter_(state["mask"], state["values"])
    expected = nn.functional.linear(x, weight, layer.bias)
    for each in (layer, copy.deepcopy(layer), layer.to_dense()):
        torch.testing.assert_close(each(x), expected)
    assert torch.equal(layer.weight, weight)
    layer.zero_grad()
    layer(x).square().sum().backward()
    grad = torch.autograd.functional.jacobian(
        lambda w: nn.functional.linear(x, w, layer.bias).square().sum(), weight, vectorize=False
    )
    torch.testing.assert_close(layer.values.grad, grad[state["mask"]])


def of_inference_mode(layer, mask):
    with torch.inference_mode():
        layer.mask.copy_(mask)


def copied_through_the_state_dict(layer, mask):
    other = SparseLinear.from_dense(nn.Linear(8, 6), mask, "dense").state_dict()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            tensor.copy_(other[name])
    assert torch.equal(layer.values, other["values"])


WRITES = {
    "copy_": lambda layer, mask: layer.mask.copy_(mask),
    "entries": lambda layer, mask: layer.mask.__setitem__(slice(None), mask),
    "a view": lambda layer, mask: layer.mask.view(-1)[:].copy_(mask.view(-1)),
    "inference mode": of_inference_mode,
    "state dict": copied_through_the_state_dict,
    "assigned": lambda layer, mask: setattr(layer, "mask", mask),
    "assigned, of inference mode": lambda layer, mask: setattr(layer, "mask", torch.inference_mode()(mask.clone)()),
    "loaded": lambda layer, mask: layer.load_state_dict({**layer.state_dict(), "mask": mask}),
}


@EVERY
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_mask_with_as_many_live_weights_counts(write, backend):
    layer = make(backend)
    layer(torch.ones(8))
    for _ in range(2):
        write(layer, random_mask())
        assert_of_one_mind(layer)


def test_a_layer_made_in_inference_mode_sees_writes_too():
    with torch.inference_mode():
        layer = make()
        layer.mask.copy_(random_mask())
        x = torch.randn(3, 8)
        torch.testing.assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: layer.double().float()], ids=["copy", "moved"])
def test_a_copy_of_a_layer_whose_mask_was_written_to_has_the_new_mask(copied):
    layer = make()
    layer.mask.copy_(random_mask())
    assert_of_one_mind(copied(layer))


@EVERY
@pytest.mark.parametrize("write", [WRITES["copy_"], WRITES["assigned"]], ids=["copy_", "assigned"])
def test_another_number_of_live_weights_is_refused_until_both_are_loaded(write, backend):
    layer = make(backend)
    write(layer, random_mask(LIVE - 3))
    for use in (
        lambda: layer(torch.ones(8)),
        lambda: layer.weight,
        layer.to_dense,
        lambda: densify(nn.Sequential(layer)),
        lambda: copy.deepcopy(layer)(torch.ones(8)),
        lambda: setattr(layer, "weight", torch.ones(6, 8)),
    ):
        with pytest.raises(
            ValueError, match=r"mask: got 17 live weights in place of 20, the size of values.*state_dict"
        ):
            use()
    layer.load_state_dict(SparseLinear.from_dense(nn.Linear(8, 6), random_mask(5)).state_dict())
    assert_of_one_mind(layer)


def test_a_write_that_changes_nothing_packs_nothing(monkeypatch):
    packed = []
    dense_class = type(registry.get("dense"))
    pack = dense_class.pack
    monkeypatch.setattr(dense_class, "pack", lambda self, *args: packed.append(args) or pack(self, *args))
    layer = make("dense")
    for _ in range(3):
        layer.mask.copy_(layer.mask.clone())
        layer(torch.ones(8))
    assert len(packed) == 1


@EVERY
def test_a_compiled_layer_refuses_another_mask_until_its_plan_is_renewed(backend):
    layer, x = make(backend), torch.randn(3, 8)
    ours = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected = ours(x)
    with torch.compiler.set_stance("fail_on_recompile"):
        layer.mask.copy_(layer.mask.clone())
        assert torch.equal(ours(x), expected)
        layer.mask.copy_(random_mask())
        for _ in range(2):
            with pytest.raises(
                ValueError, match="mask: got other live positions, written in place, in a compiled or exported layer"
            ):
                ours(x)
        renewed = layer(x)
        torch.testing.assert_close(ours(x), renewed)
    layer.mask = random_mask()
    torch.testing.assert_close(ours(x), layer.to_dense()(x))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_pattern_knows_the_mask_that_it_describes(density):
    mask = torch.rand(6, 4, 3, 3) < density
    pattern = Pattern.from_mask(mask.clone())
    assert pattern.describes(mask)
    for position in range(0, mask.numel(), 7):
        other = mask.clone()
        other.view(-1)[position] ^= True
        assert not pattern.describes(other)
    if 0 < density < 1:
        assert not pattern.describes(mask.flip(0))


@pytest.mark.parametrize("strict", [True, False])
def test_a_mask_that_comes_alone_keeps_the_survivors(strict):
    layer = make()
    before, values, old = layer.weight.detach(), layer.values, layer.mask.clone()
    new = random_mask(30)
    assert (new & ~old).any()
    if strict:
        with pytest.raises(RuntimeError, match="Missing key"):
            layer.load_state_dict({"mask": new})
    else:
        assert layer.load_state_dict({"mask": new}, strict=False).missing_keys == ["values", "bias"]
    assert layer.values is values
    assert torch.equal(layer.weight, before * new)
    assert_of_one_mind(layer)


@pytest.mark.parametrize("source", [lambda layer: layer, lambda layer: layer.to_dense()], ids=["sparse", "dense"])
def test_a_layer_of_the_meta_device_is_loaded_by_assigning(source):
    layer, x = make(), torch.randn(3, 8)
    state = source(layer).state_dict()
    on_meta = SparseLinear(8, 6, device="meta")
    on_meta.load_state_dict(state, assign=True)
    torch.testing.assert_close(on_meta(x), layer(x))
    on_meta(x).sum().backward()
    assert on_meta.values.grad.shape == on_meta.values.shape


def test_a_pruned_layer_of_the_meta_device_needs_a_mask():
    layer, x = make(), torch.randn(3, 8)
    pruned = make().to("meta")
    with pytest.raises(RuntimeError, match="mask: got none, and the layer's is on the meta device"):
        pruned.load_state_dict(layer.to_dense().state_dict(), assign=True)
    pruned.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(pruned(x), layer(x))


COMPLEX = pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")


@COMPLEX
@pytest.mark.parametrize(
    "call",
    [
        lambda: SparseLinear(3, 3, dtype=torch.complex64),
        lambda: SparseConv2d(3, 3, 3, dtype=torch.complex128),
        lambda: SparseLinear.from_dense(nn.Linear(3, 3, dtype=torch.complex64), None),
        lambda: make().to(torch.complex64),
        lambda: sparsify(nn.Sequential(nn.Linear(8, 6)), {"0": random_mask()}).type(torch.complex64),
    ],
)
def test_complex_numbers_are_refused_before_a_layer_has_them(call):
    with pytest.raises(
        TypeError,
        match=r"^\w+: got dtype torch\.complex.*, expected a real floating-point one: keep such a layer dense$",
    ):
        call()


@COMPLEX
def test_a_refused_move_leaves_the_layer_as_it_was():
    layer = make()
    with pytest.raises(TypeError, match="dtype"):
        layer.to(torch.complex64)
    assert layer.values.dtype == torch.float32
    assert_of_one_mind(layer)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda mask: mask.tolist(), TypeError, r"mask: got list, .*: torch.as_tensor\(mask, dtype=torch.bool\)$"),
        (lambda mask: mask.numpy(), TypeError, r"mask: got ndarray, .*: torch.as_tensor\(mask, dtype=torch.bool\)$"),
        (lambda mask: mask.int(), TypeError, r"mask: got dtype torch.int32, .*: mask.bool\(\)$"),
        (lambda mask: mask.float(), TypeError, r"mask: got dtype torch.float32, .*: mask.bool\(\)$"),
        (lambda mask: mask.to_sparse(), TypeError, r"mask: got layout torch.sparse_coo, .*: mask.to_dense\(\)$"),
        (lambda mask: mask.to_sparse_csr(), TypeError, r"mask: got layout torch.sparse_csr, .*: mask.to_dense\(\)$"),
        (lambda mask: mask.t(), ValueError, r"mask: got shape \(8, 6\), expected the weight's, \(6, 8\)"),
        (lambda mask: mask.flatten(), ValueError, r"mask: got shape \(48,\), expected the weight's, \(6, 8\)"),
    ],
)
@pytest.mark.parametrize("way", ["made", "from_dense", "assigned", "loaded", "sparsified", "set", "saved"])
def test_what_is_no_mask_is_refused_alike_wherever_one_is_taken(tmp_path, way, given, error, message):
    layer, mask = make(), given(random_mask())
    ways = {
        "made": lambda: SparseLinear(8, 6, mask=mask),
        "from_dense": lambda: SparseLinear.from_dense(nn.Linear(8, 6), mask),
        "assigned": lambda: setattr(layer, "mask", mask),
        "loaded": lambda: layer.load_state_dict({"mask": mask}, strict=False),
        "sparsified": lambda: sparsify(nn.Sequential(nn.Linear(8, 6)), {"0": mask}),
        "set": lambda: lth.set_masks(nn.Sequential(layer), {"0": mask}),
        "saved": lambda: lth.save_ticket(tmp_path / "t", nn.Sequential(nn.Linear(8, 6)), {"0": mask}),
    }
    named = message.replace("mask:", r'masks\["0"\]:', 1) if way in ("sparsified", "set", "saved") else message
    raised = {"loaded": RuntimeError, "saved": ValueError}.get(way, error)
    with pytest.raises(raised, match=named):
        ways[way]()
    assert_of_one_mind(layer)
