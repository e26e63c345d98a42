"""Freezing, replacing a head, adapters around a layer, and weights that two layers share."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, dense_state, sgd, train, twins


def test_frozen_layers_stay_and_train_again_when_they_thaw():
    models = twins()
    for model in models:
        model[:4].requires_grad_(False)
        before = dense_state(model[:4])
        train(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1))
        frozen = {name: value for name, value in before.items() if name.endswith("weight")}
        assert_equal({name: dense_state(model[:4])[name] for name in frozen}, frozen)
        assert not any(p.grad is not None for p in model[:4].parameters())
        model.requires_grad_(True)
        train(model, sgd(model))
        assert not torch.equal(dense_state(model)["0.weight"], frozen["0.weight"])
    assert_twins(*models)


@pytest.mark.parametrize("before", [True, False], ids=["frozen before sparsify", "after"])
def test_a_new_head_on_a_frozen_body(before):
    body, _ = twins()
    lth.densify(body)
    models = []
    for sparse in (True, False):
        model = copy.deepcopy(body)
        if before:
            model.requires_grad_(False)
        if sparse:
            lth.sparsify(model)
        if not before:
            model.requires_grad_(False)
        torch.manual_seed(3)
        model[6] = nn.Linear(54, 5)
        train(model, sgd(model))
        models.append(model)
    assert_twins(*models)
    assert models[0][0].values.grad is None


class LoRA(nn.Module):
    """A frozen layer, and what a matrix of rank 2 adds to it, as libraries of adapters write it."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=base.weight.dtype, device=base.weight.device)
        self.up = nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    def delta(self):
        return self.up.weight @ self.down.weight


def with_adapters(models):
    for model in models:
        torch.manual_seed(3)
        model[6] = LoRA(model[6])
        train(model, torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01))
    return models


def test_an_adapter_of_low_rank_trains_around_a_sparse_layer():
    sparse, dense = with_adapters(twins())
    assert dense[6].up.weight.any()
    assert_twins(sparse, dense)


def test_to_merge_it_in_place_is_refused_and_assigned_it_lands_on_the_live_weights():
    sparse, dense = with_adapters(twins())
    layer, delta = sparse[6].base, sparse[6].delta().detach()
    with pytest.raises(RuntimeError, match=r"layer\.weight = tensor"):
        layer.weight.data += delta
    layer.weight = layer.weight + delta
    with torch.no_grad():
        expected = (dense[6].base.weight + delta) * layer.mask
    assert_equal(layer.to_dense().weight.detach(), expected)


def test_two_layers_that_share_their_values():
    models = twins(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)))
    sparse, dense = models
    sparse[2] = copy.deepcopy(sparse[0])
    sparse[2].values = sparse[0].values
    dense[2].load_state_dict(dense[0].state_dict())
    dense[2].weight = dense[0].weight
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    for model in models:
        optimizer = sgd(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert_twins(sparse, dense)
    assert sparse[2].values is sparse[0].values


class Autoencoder(nn.Module):
    """The decoder is the encoder's weight, transposed."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(9, 4)

    def forward(self, x):
        return F.linear(torch.tanh(self.encoder(x)), self.encoder.weight.t())


def test_an_autoencoder_that_uses_its_weight_twice():
    models, losses = twins(Autoencoder), []
    x = torch.randn(16, 9, generator=torch.Generator().manual_seed(3))
    for model in models:
        optimizer = sgd(model)
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), x)
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    assert_equal(*losses)
    assert_twins(*models)


def test_a_teacher_and_its_student():
    teacher, dense_teacher = (model.eval().requires_grad_(False) for model in twins())
    students = twins()
    for model, guide in zip(students, (teacher, dense_teacher), strict=True):
        optimizer = sgd(model)
        for images, _ in batches():
            optimizer.zero_grad()
            F.kl_div(model(images).log_softmax(1), guide(images).softmax(1), reduction="batchmean").backward()
            optimizer.step()
    assert_twins(*students)
