"""torch.nn.utils.prune: a sparse model becomes a model under it, and comes back, bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lth_sparse as lth


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 6),
        nn.Linear(6, 6),
    )
    model(torch.randn(4, 3, 6, 6))  # So that BatchNorm's buffers are none that it begins with.
    return model


def masks_of(model, density=0.3):
    generator = torch.Generator().manual_seed(1)
    layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    return {name: torch.rand(each.weight.shape, generator=generator) < density for name, each in layers.items()}


def sparse(model=None):
    model = model or network()
    return lth.sparsify(model, masks_of(model), "dense")


def same_state(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_there_and_back_every_bit_is_the_same():
    model = sparse()
    model[4].values.requires_grad_(False)
    model[0].values.data[0] = -0.0
    before, x = copy.deepcopy(model), torch.randn(2, 3, 6, 6)
    bits = model[0].values.detach().view(torch.int32).clone()
    pruned = lth.densify(model, prune=True)
    assert pruned is model
    for name in ("0", "4", "5"):
        layer, of = pruned.get_submodule(name), before.get_submodule(name)
        assert type(layer) in (nn.Conv2d, nn.Linear)
        assert prune.is_pruned(layer)
        assert torch.equal(layer.weight_mask, of.mask.to(torch.float32))
        assert torch.equal(layer.weight_orig[of.mask], of.values)
        assert not layer.weight_orig[~of.mask].any()
        assert layer.weight_orig.requires_grad == of.values.requires_grad
    torch.testing.assert_close(pruned.eval()(x), before.eval()(x))
    back = lth.sparsify(pruned, backend="dense")
    assert same_state(back, before)
    assert torch.equal(back[0].values.detach().view(torch.int32), bits)
    assert not back[4].values.requires_grad
    assert back[5].values.requires_grad
    assert back[0].bias is None


def test_pruned_weights_stay_pruned_under_training():
    model = lth.densify(sparse(), prune=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    for layer in (model[0], model[4]):
        assert not (layer.weight[layer.weight_mask == 0]).any()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_a_layer_that_is_all_pruned_or_all_alive_comes_back(density):
    model = network()
    model = lth.sparsify(model, masks_of(model, density), "dense")
    before = copy.deepcopy(model)
    assert same_state(lth.sparsify(lth.densify(model, prune=True), backend="dense"), before)


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    mask = torch.rand(5, 5) < 0.5
    model = lth.densify(lth.sparsify(model, {"0": mask, "2": mask}, "dense"), prune=True)
    assert model[0].weight_orig is model[2].weight_orig
    assert model[0].bias is model[2].bias
    back = lth.sparsify(model, backend="dense")
    assert back[0].values is back[2].values


def test_hooks_come_along_and_see_the_pruned_weight():
    seen = []
    model = sparse()
    handle = model[4].register_forward_pre_hook(lambda layer, given: seen.append(layer.weight.detach().clone()))
    model[4].register_buffer("calls", torch.tensor(3))
    lth.densify(model, prune=True)
    with torch.no_grad():
        model[4].weight_orig += 1.0
    model(torch.randn(2, 3, 6, 6))
    assert torch.equal(seen[0], model[4].weight_orig * model[4].weight_mask)
    assert model[4].calls == 3
    back = lth.sparsify(model, backend="dense")
    back(torch.randn(2, 3, 6, 6))
    handle.remove()
    back(torch.randn(2, 3, 6, 6))
    assert len(seen) == 2


def test_a_layer_by_itself():
    layer = lth.SparseLinear(4, 3, mask=torch.rand(3, 4) < 0.5, backend="dense")
    pruned = lth.densify(layer, prune=True)
    assert type(pruned) is nn.Linear
    assert torch.equal(pruned.weight, layer.weight)
    assert same_state(lth.sparsify(pruned, backend="dense"), layer)


def test_a_ticket_becomes_a_pruned_model_and_a_ticket_again(tmp_path):
    model = network()
    masks = masks_of(model)
    lth.save_ticket(tmp_path / "one.safetensors", model, masks)
    loaded = lth.load_ticket(tmp_path / "one.safetensors", network())
    pruned = lth.densify(lth.sparsify(loaded, loaded.ticket.masks, "dense"), prune=True)
    lth.save_ticket(tmp_path / "two.safetensors", pruned)
    one, two = (lth.read_ticket(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.masks.keys() == two.masks.keys()
    assert all(torch.equal(one.masks[name], two.masks[name]) for name in one.masks)
    assert one.weights.keys() == two.weights.keys()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_a_name_that_is_taken_is_refused_and_nothing_changes():
    model = sparse()
    model[5].register_buffer("weight_mask", torch.zeros(1))
    with pytest.raises(ValueError, match=r'"5": got an attribute "weight_mask".*rename it'):
        lth.densify(model, prune=True)
    assert isinstance(model[0], lth.SparseConv2d)
