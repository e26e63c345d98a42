"""Topologies that change while a network is trained, against rules written down by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.backends import auto
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.evaluation import evaluate
from lth_sparse.lottery.held_masks import HeldMasks
from lth_sparse.lottery.optimizer import optimizer_of
from lth_sparse.lottery.topology import GROWTH, rule_of
from lth_sparse.lottery.topology.changes import Changes, Clock
from lth_sparse.lottery.topology.interface import Moment, Updates
from lth_sparse.lottery.training import Training
from lth_sparse.nn import masks as masking
from lth_sparse.nn import sparsify
from lth_sparse.nn.forms import dense_state, own_masks
from lth_sparse.nn.masks import Masks, all_alive, apply, prunable
from lth_sparse.settings.config import PruningConfig, TrainingConfig
from lth_sparse.system.errors import InputError

STEPS, EVERY, END = 12, 2, 9
SGD = TrainingConfig(
    optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-3, batch_size=16, epochs=3, evaluate_every=3
)
ADAM = replace(SGD, optimizer="adam", learning_rate=0.01)
DYNAMIC = {name: PruningConfig(dynamic=name, update_every=EVERY) for name in GROWTH}
GRADUAL = PruningConfig(schedule="gradual", rounds=1, sparsity=0.9, update_every=EVERY, conv_rate=0.1)
SETTINGS = {**DYNAMIC, "gradual": GRADUAL}


def half_masks(model: nn.Module) -> Masks:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.rand(w.shape, generator=generator) < 0.5 for name, w in prunable(model).items()}


def make(
    data: Dataset, pruning: PruningConfig, backend: str = "dense", config: TrainingConfig = SGD, name: str = "small"
) -> Training:
    """A training of half of the weights, of all of them for gradual pruning, in the middle of which they change."""
    network = models.build(models.Network(name, data.image_shape, 2), seed=0)
    masks = all_alive(network) if pruning.schedule == "gradual" else half_masks(network)
    apply(network, masks)
    model = network if backend == "dense" else sparsify(copy.deepcopy(network), masks, backend)
    sizes = {layer: weight.numel() for layer, weight in prunable(network).items()}
    rule = rule_of(pruning, sizes, masking.kinds(network), 0, STEPS)
    assert rule is not None
    changes = Changes(rule, network, 7)
    return Training(model, masks, data, Batches(data, 16, "crop", 0), config, (1, "ticket"), changes=changes)


def nothing() -> None:
    pass


def by_hand(weight: Tensor, alive: Tensor, scores: Tensor, step: int) -> Tensor:
    """Evci et al. 2020, algorithm 1, for one layer: the mask after the update before `step`."""
    weights, growing = weight.flatten().tolist(), scores.flatten().tolist()
    live = [place for place, lives in enumerate(alive.flatten().tolist()) if lives]
    count = int(0.3 / 2 * (1 + math.cos(math.pi * step / END)) * len(live))
    kept = sorted(live, key=lambda place: -abs(weights[place]))[: len(live) - count]
    others = sorted(set(range(len(weights))) - set(kept), key=lambda place: -growing[place])[:count]
    mask = torch.zeros(len(weights), dtype=torch.bool)
    mask[kept + others] = True
    return mask.reshape(weight.shape)


@pytest.mark.parametrize("name", GROWTH)
def test_an_update_is_the_one_of_the_paper(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = {"a": torch.rand(20, 30, generator=generator) < 0.1, "b": torch.rand(7, 5, 3, 3, generator=generator) < 0.5}
    masks |= {"full": torch.ones(3, 4, dtype=torch.bool), "few": torch.eye(3, dtype=torch.bool)}
    weights = {layer: torch.randn(mask.shape, generator=generator) * mask for layer, mask in masks.items()}
    gradient = {layer: torch.randn(mask.shape, generator=generator) for layer, mask in masks.items()}
    rule = rule_of(DYNAMIC[name], {}, {}, 0, STEPS)
    assert rule is not None
    for step in (2, 4, 8):
        moment = Moment(step, weights, lambda: gradient, step)
        found = rule.changed(masks, moment)
        scores = GROWTH[name](masks, moment)
        assert all(
            torch.equal(found[layer], by_hand(weights[layer], masks[layer], scores[layer], step)) for layer in masks
        )
        moved = {layer: int((found[layer] & ~mask).sum()) for layer, mask in masks.items()}
        assert (moved["full"], moved["few"]) == (0, 0)
        if step == 2:
            assert min(moved["a"], moved["b"]) > 5
    if name == "rigl":
        assert all(torch.equal(scores[layer], gradient[layer].abs()) for layer in masks)


def test_what_is_dropped_may_grow_again_in_the_same_update() -> None:
    """As in RigL's algorithm: all that is not alive once they are dropped may grow."""
    weights = {"a": torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0]])}
    alive = {"a": weights["a"] != 0}
    rule = rule_of(DYNAMIC["rigl"], {}, {}, 0, STEPS)
    assert rule is not None
    for gradient, expected in (([9, 0, 0, 0, 1, 1], [0, 1, 2, 3]), ([1, 0, 0, 0, 1, 9], [1, 2, 3, 5])):
        slopes = {"a": torch.tensor([gradient])}
        found = rule.changed(alive, Moment(2, weights, partial(dict, slopes), 0))["a"]
        assert found.flatten().nonzero().flatten().tolist() == expected


def test_set_grows_at_random_by_seed_and_layer() -> None:
    masks = {name: torch.rand(40, 50, generator=torch.Generator().manual_seed(1)) < 0.2 for name in ("a", "b")}
    rule = rule_of(DYNAMIC["set"], {}, {}, 0, STEPS)
    assert rule is not None
    weights = {name: mask.float() for name, mask in masks.items()}

    def grown(seed: int) -> dict[str, Tensor]:
        found = rule.changed(masks, Moment(2, weights, dict, seed))
        return {name: (found[name] & ~mask).flatten() for name, mask in masks.items()}

    one, other = grown(0), grown(1)
    assert torch.equal(grown(0)["a"], one["a"])
    assert not torch.equal(one["a"], other["a"])
    assert not torch.equal(one["a"], one["b"])
    often = torch.stack([grown(seed)["a"].float() for seed in range(200)]).mean(0)
    dead = ~masks["a"].flatten()
    # Each dead weight as likely as any other: no more deviation than 200 draws explain.
    assert float(often[dead].std()) < 1.15 * math.sqrt(float(often[dead].mean()) / 200)


@pytest.mark.parametrize("config", [SGD, ADAM], ids=["sgd", "adam"])
def test_rigl_is_a_plain_loop(tiny_data: Dataset, config: TrainingConfig) -> None:
    training = make(tiny_data, DYNAMIC["rigl"], config=config)
    model, masks = copy.deepcopy(training.model), dict(training.masks)
    training.run(nothing, nothing)
    optimizer, batches = optimizer_of(model, config), Batches(tiny_data, 16, "crop", 0)
    for step in range(STEPS):
        images, labels = batches[step]
        if step in (2, 4, 6, 8):
            copied = copy.deepcopy(model)
            nn.functional.cross_entropy(copied(images), labels).backward()
            for name, weight in prunable(model).items():
                gradient = prunable(copied)[name].grad
                assert gradient is not None
                mask = by_hand(weight, masks[name], gradient.abs(), step)
                for state in optimizer.state[weight].values():
                    if state.shape == weight.shape:
                        state[mask & ~masks[name]] = 0
                masks[name] = mask
            apply(model, masks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        apply(model, masks)
    assert all(torch.equal(training.masks[name], mask) for name, mask in masks.items())
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in training.model.state_dict().items())


@pytest.mark.parametrize("name", SETTINGS)
def test_sparse_kernels_come_to_the_masks_of_the_dense_backend(tiny_data: Dataset, name: str) -> None:
    dense, sparse = make(tiny_data, SETTINGS[name]), make(tiny_data, SETTINGS[name], "cpp")
    first = dict(dense.masks)
    for training in (dense, sparse):
        training.run(nothing, nothing)
    assert not torch.equal(first["fc1"], dense.masks["fc1"])
    for layer, mask in dense.masks.items():
        assert torch.equal(mask, sparse.masks[layer]), layer
        assert torch.equal(mask, own_masks(sparse.model)[layer])
        assert bool((prunable(dense.model)[layer][~mask] == 0).all())
        if name in GROWTH:
            assert int(mask.sum()) == int(first[layer].sum())
    torch.testing.assert_close(dense_state(sparse.model), dense.model.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("backend", ["dense", "cpp"])
def test_new_weights_begin_with_0_and_without_momentum_and_the_others_keep_theirs(
    tiny_data: Dataset, backend: str, config: TrainingConfig
) -> None:
    training = make(tiny_data, DYNAMIC["set"], backend, config)
    for _ in range(2):
        training.step()

    def tensors() -> dict[str, dict[str, Tensor]]:
        """Dense, of each layer its weight and what the optimizer keeps."""
        found: dict[str, dict[str, Tensor]] = {}
        for layer, mask in training.masks.items():
            module: Any = training.model.get_submodule(layer)
            own = module.weight if backend == "dense" else module.values
            kept = {key: value for key, value in training.optimizer.state[own].items() if value.shape == own.shape}
            found[layer] = {
                key: value.detach() * mask if backend == "dense" else module.pattern.scatter(value.detach())
                for key, value in (kept | {"weight": own}).items()
            }
            found[layer] = {key: value.clone() for key, value in found[layer].items()}
        return found

    before, masks = tensors(), dict(training.masks)
    assert training._changes is not None
    training._change_topology(training._changes)
    after = tensors()
    born = {layer: training.masks[layer] & ~mask for layer, mask in masks.items()}
    assert all(bool(each.any()) for each in born.values())
    for layer, mask in masks.items():
        assert set(after[layer]) == {"weight", *(("momentum_buffer",) if config is SGD else ("exp_avg", "exp_avg_sq"))}
        stayed = mask & training.masks[layer]
        for key, value in after[layer].items():
            assert bool((value[born[layer]] == 0).all()), (layer, key)
            assert torch.equal(value[stayed], before[layer][key][stayed])
            assert bool((value[stayed] != 0).any())


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_gradual_pruning_has_the_sparsity_of_its_schedule_at_each_update(tiny_data: Dataset, scope: str) -> None:
    training = make(tiny_data, replace(GRADUAL, scope=scope), "cpp")
    seen: list[float] = []
    before = dict(training.masks)

    def note() -> None:
        seen.append(1 - masking.density(training.masks))
        assert not any(bool((training.masks[name] & ~mask).any()) for name, mask in before.items())
        before.update(training.masks)

    training.run(nothing, note)
    updated = [0.9 * (1 - (1 - step / 8) ** 3) for step in (0, 2, 4, 6, 8)]
    # After the steps 0, 1, ...: the update comes before a step.
    expected = [updated[min(step // 2, 4)] for step in range(STEPS)]
    assert seen == pytest.approx(expected, abs=1e-3)
    conv = {name: float(mask.float().mean()) for name, mask in training.masks.items() if name.startswith("conv")}
    fc = {name: float(mask.float().mean()) for name, mask in training.masks.items() if not name.startswith("conv")}
    if scope == "layerwise":  # By the rates of their kinds.
        assert max(conv.values()) - min(conv.values()) < 0.01
        assert min(conv.values()) > max(fc.values()) + 0.05
    else:
        assert max(conv.values()) - min(conv.values()) > 0.05


@pytest.mark.parametrize(("name", "backend"), [("rigl", "dense"), ("rigl", "cpp"), ("set", "cpp"), ("gradual", "cpp")])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_restored_training_goes_on_with_its_masks_to_the_same_bits(
    tiny_data: Dataset, name: str, backend: str, stop_after: int
) -> None:
    whole = make(tiny_data, SETTINGS[name], backend, ADAM)
    states = []
    whole.run(lambda: states.append(copy.deepcopy(whole.state())), nothing)
    resumed = make(tiny_data, SETTINGS[name], backend, ADAM)
    resumed.restore(*states[stop_after - 1])
    assert resumed.iteration in (4, 8)  # Right before an update.
    assert resumed.best_weights
    resumed.run(nothing, nothing)
    for one, other in ((whole.model.state_dict(), resumed.model.state_dict()), (whole.masks, resumed.masks)):
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert (resumed.curve, resumed.early_stop) == (whole.curve, whole.early_stop)
    assert all(torch.equal(resumed.best_weights[key], value) for key, value in whole.best_weights.items())
    assert resumed._changes is not None
    assert resumed._changes.clock.following_steps == 4


@pytest.mark.parametrize("backend", ["dense", "cpp"])
def test_a_state_with_masks_of_another_training_is_refused(tiny_data: Dataset, backend: str) -> None:
    training = make(tiny_data, GRADUAL, backend)
    states = []
    training.run(lambda: states.append(copy.deepcopy(training.state())), nothing)
    (tensors, data), (later, _) = states[0], states[1]
    mixed = tensors | {name: value for name, value in later.items() if name.startswith("topology/")}
    if backend == "cpp":
        with pytest.raises(ValueError, match=r"topology/\w+ is not the mask of the model"):
            make(tiny_data, GRADUAL, backend).restore(mixed, data)
    lost = {name: value for name, value in tensors.items() if not name.startswith("topology/")}
    with pytest.raises(KeyError):
        make(tiny_data, GRADUAL, backend).restore(lost, data)


def test_the_best_weights_have_the_masks_of_their_moment(tiny_data: Dataset) -> None:
    training = make(tiny_data, replace(GRADUAL, sparsity=0.99), "cpp", ADAM)
    training.run(nothing, nothing)
    assert training.early_stop < 8  # Which makes sense of this test.
    last, masks = copy.deepcopy(training.model.state_dict()), dict(training.masks)
    training.model.load_state_dict(training.best_weights)
    assert masking.live(own_masks(training.model)) > masking.live(masks)
    found = evaluate(training.model, tiny_data.validation, tiny_data)
    assert found.loss == pytest.approx(training.best_loss, rel=1e-6)
    training.model.load_state_dict(last)
    assert all(torch.equal(mask, masks[name]) for name, mask in own_masks(training.model).items())


@pytest.mark.parametrize("backend", ["dense", "cpp"])
def test_a_dense_gradient_leaves_running_statistics_and_chance_as_they_were(tiny_data: Dataset, backend: str) -> None:
    training = make(tiny_data, DYNAMIC["rigl"], backend, name="resnet20")
    training.step()
    before = {name: value.clone() for name, value in training.model.named_buffers() if not name.endswith("mask")}
    chance = torch.get_rng_state()
    changes: Changes | None = training._changes
    assert changes is not None
    changes.make(2, training._held, training.optimizer, *training._batches[2])
    assert any("running_mean" in name for name in before)
    now = dict(training.model.named_buffers())
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert training.model.training
    assert changes.clock.gradient > 0


def test_auto_measures_nothing_anew_where_the_density_stays(
    tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure: Callable[..., object] = auto._measure
    training = make(tiny_data, DYNAMIC["set"], "auto")

    def noted(*arguments: object) -> object:
        measured.append(training.iteration)
        return measure(*arguments)

    monkeypatch.setattr(auto, "_measure", noted)
    with auto.remembering(auto.Choices()):
        training.run(nothing, nothing)
    # Evaluations come in other batch sizes, the first of them after the third step.
    assert 0 in measured
    assert max(measured) <= 3


def test_updates_come_in_the_first_three_quarters_and_not_at_once() -> None:
    assert [step for step in range(200) if Updates(0, 30, 200).due(step)] == [30, 60, 90, 120, 150]
    late = Updates(50, 40, 200)
    assert [step for step in range(200) if late.due(step)] == [90, 130]
    assert (late.end, late.last) == (150, 130)
    with pytest.raises(InputError, match=r"--update-every 101: .*from step 50 to step 150; expected at most 100"):
        Updates(50, 101, 200).check()
    Updates(50, 100, 200).check()


def test_repacking_counts_the_surplus_of_the_steps_that_follow() -> None:
    clock = Clock(gradient=1.0, repacking=2.0, following=5.0, following_steps=2)
    # 10 others took 20 of 28 seconds, 2 each; the two that followed a change 5, which is 1 more.
    assert clock.repacking_with_surplus(28.0, 12) == pytest.approx(3.0)
    assert replace(clock, following=3.0).repacking_with_surplus(26.0, 12) == 2.0
    assert clock.repacking_with_surplus(8.0, 2) == 2.0


def test_masks_held_on_a_dense_network_are_those_that_were_taken_last() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 3))
    masks: Mapping[str, Tensor] = {"0": torch.ones(3, 4, dtype=torch.bool)}
    held = HeldMasks(model, dict(masks))
    fewer = {"0": torch.eye(3, 4, dtype=torch.bool)}
    held.change(fewer, torch.optim.SGD(model.parameters(), 0.1))
    with torch.no_grad():
        model[0].weight.fill_(1)
    held.apply()
    assert torch.equal(model[0].weight != 0, fewer["0"])
