"""Prune, snapshot, rewind and its proof, in a training loop of one's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import lth_sparse as lth
from lth_sparse.system.errors import InputError, ProofError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(200, 10), nn.Linear(10, 3)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(8, 3, 5, 5, generator=generator)).square().mean().backward()
        optimizer.step()


def live(model: nn.Module) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in lth.get_masks(model).items()}


# prune


def test_a_rate_is_of_the_live_weights_of_each_layer() -> None:
    model = network()
    weights = {name: model.get_submodule(name).weight.detach().abs() for name in ("0", "4", "5")}
    assert lth.prune(model, 0.25) is model
    assert live(model) == {"0": 162, "4": 1500, "5": 22}
    for name, mask in lth.get_masks(model).items():
        assert weights[name][mask].min() >= weights[name][~mask].max()
    before = lth.get_masks(model)
    lth.prune(model, 0.5)
    assert live(model) == {"0": 81, "4": 750, "5": 11}
    for name, mask in lth.get_masks(model).items():
        assert not (mask & ~before[name]).any()


def test_a_global_scope_ranks_all_layers_together() -> None:
    model = network()
    weights = torch.cat([model.get_submodule(name).weight.detach().abs().flatten() for name in ("0", "4", "5")])
    lth.prune(model, sparsity=0.9, scope="global")
    masks = torch.cat([mask.flatten() for mask in lth.get_masks(model).values()])
    assert int(masks.sum()) == round(0.1 * 216) + round(0.1 * 2000) + round(0.1 * 30)
    assert weights[masks].min() >= weights[~masks].max()


def test_a_sparsity_is_reached_and_never_undone() -> None:
    model = network()
    lth.prune(model, sparsity=0.8)
    assert live(model) == {"0": 43, "4": 400, "5": 6}
    masks = lth.get_masks(model)
    lth.prune(model, sparsity=0.5)
    assert all(torch.equal(mask, masks[name]) for name, mask in lth.get_masks(model).items())


def test_layers_are_those_that_are_named() -> None:
    model = network()
    lth.prune(model, {"4": 0.5, "0": 0.1})
    assert live(model) == {"0": 194, "4": 1000}
    assert type(model[5]) is nn.Linear
    model = network()
    lth.prune(model, 0.5, layers=["5"])
    assert live(model) == {"5": 15}


def test_a_layer_keeps_one_weight() -> None:
    model = lth.prune(nn.Linear(3, 2), sparsity=0.99)
    assert isinstance(model, lth.SparseLinear)
    assert model.values.numel() == 1


def test_gradual_pruning_in_a_loop_keeps_the_optimizer() -> None:
    """Zhu and Gupta's schedule: the docstring's line."""
    model, steps = network(), 20
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step in range(1, steps + 1):
        train(model, optimizer, 1)
        lth.prune(model, sparsity=0.9 * (1 - (1 - step / steps) ** 3), optimizer=optimizer)
    assert all(abs(layer.sparsity - 0.9) < 0.01 for layer in model if hasattr(layer, "sparsity"))
    parameters = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} == parameters
    assert all(state["momentum_buffer"].shape == parameter.shape for parameter, state in optimizer.state.items())


def test_a_criterion_of_ones_own() -> None:
    model = network()
    lth.prune(model, 0.5, layers=["5"], criterion=lambda m: {"5": torch.arange(30.0).view(3, 10)})
    assert torch.equal(lth.get_masks(model)["5"].flatten(), torch.arange(30) >= 15)


def test_a_model_of_torchs_pruning_goes_on_from_its_masks() -> None:
    model = network()
    torch_prune.l1_unstructured(model[4], "weight", 0.5)
    mask = model[4].weight_mask.bool()
    lth.prune(model, {"4": 0.5})
    assert live(model) == {"4": 500}
    assert not (lth.get_masks(model)["4"] & ~mask).any()


def test_tied_weights_are_counted_once_and_share_the_mask() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    lth.prune(model, 0.5, scope="global")
    masks = lth.get_masks(model)
    assert torch.equal(masks["0"], masks["2"])
    assert int(masks["0"].sum()) + int(masks["3"].sum()) == 36


def test_what_sparse_layers_could_not_replace_is_left_alone() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    lth.prune(model, 0.5)
    assert set(lth.get_masks(model)) == {"linear1", "linear2"}
    with pytest.raises(InputError, match=r"no layer 'self_attn.out_proj' that can be pruned.*it has linear1, linear2"):
        lth.prune(model, 0.5, layers=["self_attn.out_proj"])
    normed = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 8))
    assert set(lth.get_masks(lth.prune(normed, 0.5))) == {"1"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "give rate, .*, or sparsity"),
    "both": ({"rate": 0.1, "sparsity": 0.1}, "give rate, .*, or sparsity"),
    "a rate of 1": ({"rate": 1.0}, r"rate: got 1.0, expected a fraction in \[0, 1\)"),
    "a negative sparsity": ({"sparsity": -0.1}, "sparsity: got -0.1"),
    "a rate in words": ({"rate": "0.1"}, "rate: got '0.1'"),
    "a scope": ({"rate": 0.1, "scope": "globl"}, "scope: got 'globl', did you mean \"global\""),
    "a layer": ({"rate": 0.1, "layers": ["6"]}, "no layer '6' that can be pruned.*; it has 0, 4, 5"),
    "no layers": ({"rate": 0.1, "layers": []}, "layers: got none"),
    "two of them": ({"rate": {"0": 0.1}, "scope": "global"}, "rate: got one for each layer, expected neither"),
    "a criterion": ({"rate": 0.1, "criterion": "magnitud"}, 'did you mean "magnitude"'),
    "no mapping": ({"rate": 0.1, "criterion": lambda m: None}, "criterion: got a NoneType, expected {layer: scores}"),
    "no scores": ({"rate": 0.1, "criterion": lambda m: {}}, 'got NoneType for layer "0", expected scores of the shape'),
    "a shape": ({"rate": 0.1, "criterion": lambda m: {"0": torch.ones(3)}}, r'got shape \(3,\) for layer "0"'),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_refused(given: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(InputError, match=message):
        lth.prune(model, **given)
    assert lth.get_masks(model) == {}


def test_weights_that_diverged_are_refused() -> None:
    model = network()
    model[4].weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match='NaN for live weights of layer "4": has the training diverged'):
        lth.prune(model, 0.5)


# rewind


@pytest.mark.parametrize("form", ["dense", "sparse", "pruned by torch", "in DataParallel"])
def test_a_rewound_model_is_the_saved_one_masked(form: str) -> None:
    model: nn.Module = network()
    saved = lth.snapshot(model)
    expected = copy.deepcopy(model.state_dict())
    if form == "sparse":
        lth.prune(model, 0.5)
    elif form == "pruned by torch":
        for layer in (model[0], model[4]):  # type: ignore[index]
            torch_prune.l1_unstructured(layer, "weight", 0.5)
    elif form == "in DataParallel":
        model = nn.DataParallel(lth.prune(model, 0.5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimizer)
    masks = lth.get_masks(model)
    statements = dict(lth.rewind(model, saved, optimizer))
    assert "the optimizer starts empty" in statements
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in lth.snapshot(model).weights.items():
        mask = masks.get(name.removesuffix(".weight"))
        assert torch.equal(value, expected[name] if mask is None else expected[name] * mask), name
    torch.manual_seed(1)
    train(model, optimizer)
    if form != "dense":
        assert len(lth.prove_training(model, saved)) == 3


def test_a_snapshot_is_a_copy() -> None:
    model = network()
    saved = lth.snapshot(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert saved.weights["0.weight"].any()


def test_saved_weights_that_were_trained_on_are_not_proved() -> None:
    model = network()
    saved = lth.snapshot(model)
    saved.weights["4.bias"][3] += 1e-3
    with pytest.raises(ProofError, match="the saved weights are those of the record"):
        lth.rewind(model, saved)


def test_a_training_that_moves_nothing_is_not_proved() -> None:
    model = network()
    saved = lth.snapshot(model)
    lth.prune(model, 0.5)
    lth.rewind(model, saved)
    with pytest.raises(ProofError, match=r"live positive weights moved .* whose gradient is not known"):
        lth.prove_training(model, saved)


def test_what_is_no_snapshot_or_has_no_masks_is_refused() -> None:
    model = network()
    with pytest.raises(InputError, match="saved: got a OrderedDict"):
        lth.rewind(model, model.state_dict())  # type: ignore[arg-type]
    saved = lth.snapshot(model)
    with pytest.raises(InputError, match="got one without masks, of which nothing can be proved"):
        lth.prove_training(model, saved)
    with pytest.raises(InputError, match=r"'0.bias' is torch.float32 \(8,\) in it, and torch.float64"):
        lth.rewind(model.double(), saved)


def test_a_loss_of_before_is_no_obstacle() -> None:
    """It holds the graph, and with it what adds up the gradients of `values`."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    fired: list[int] = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 3, 5, 5)).square().mean()
        loss.backward()
        optimizer.step()
        lth.prune(model, 0.3, optimizer=optimizer)
        if not fired:
            model[4].values.register_post_accumulate_grad_hook(lambda values: fired.append(values.grad.numel()))
            fired.append(0)
    assert fired[1:] == [1400, 980, 686]


def test_a_weight_shared_with_something_else_is_left_dense() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 6), "hidden": nn.Linear(6, 6), "output": nn.Linear(6, 9)})
    model["output"].weight = model["embedding"].weight
    lth.prune(model, 0.5)
    assert set(lth.get_masks(model)) == {"hidden"}


def test_weights_of_another_model_are_refused_whole() -> None:
    model = network()
    before: dict[str, Tensor] = copy.deepcopy(model.state_dict())
    other = nn.Sequential(*network()[:5], nn.Linear(10, 4))
    with pytest.raises(InputError, match=r"'5.bias' is torch.float32 \(4,\) in it, and .* \(3,\) in the model"):
        lth.rewind(model, lth.snapshot(other))
    with pytest.raises(InputError, match=r"'5.bias' is nothing in it"):
        lth.rewind(model, lth.snapshot(network()[:5]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
