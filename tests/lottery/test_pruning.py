from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_sparse import models
from lth_sparse.lottery import pruning
from lth_sparse.nn import masks as masking
from lth_sparse.settings.config import PruningConfig
from lth_sparse.system.errors import InputError

KINDS = {"a": "conv", "b": "fc", "c": "output"}
SIZES = {"a": 1000, "b": 3000, "c": 200}


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in SIZES.items()}


def alive() -> masking.Masks:
    return {name: torch.ones(size, dtype=torch.bool) for name, size in SIZES.items()}


@pytest.mark.alone  # Hypothesis limits the time of an example, unless CI is set.
@given(
    scope=st.sampled_from(["layerwise", "global"]),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9])] * 3),
    seed=st.integers(0, 5),
)
def test_rounds_keep_the_largest_and_never_revive(scope: str, rates: tuple[float, float, float], seed: int) -> None:
    conv, fc, output = rates
    config = PruningConfig(scope=scope, conv_rate=conv, fc_rate=fc, output_rate=output)
    masks = alive()
    for played in range(1, 4):
        trained = weights(10 * seed + played)
        keep = pruning.density_after(config, played, SIZES, KINDS)
        after = pruning.magnitude(trained, masks, keep, config, KINDS)
        for name in SIZES:
            assert not (after[name] & ~masks[name]).any()
        groups = [[name] for name in SIZES]
        if scope == "global":
            by_rate: dict[float, list[str]] = {}
            for name, rate in zip(SIZES, rates, strict=True):
                by_rate.setdefault(rate, []).append(name)
            groups = list(by_rate.values())
        for group in groups:
            kept = torch.cat([trained[name].abs()[after[name]] for name in group])
            dropped = torch.cat([trained[name].abs()[masks[name] & ~after[name]] for name in group])
            assert len(kept) == max(1, sum(round(keep[name] * SIZES[name]) for name in group))
            if len(dropped):
                assert kept.min() >= dropped.max()
        masks = after


def test_ties_keep_the_first_and_the_number_is_exact() -> None:
    config = PruningConfig(prune_rate=0.5)
    masks = pruning.magnitude(
        {"a": torch.tensor([0.0, 1.0, -1.0, 1.0, 0.0, -1.0])},
        {"a": torch.ones(6, dtype=torch.bool)},
        {"a": 0.5},
        config,
        {"a": "conv"},
    )
    assert masks["a"].tolist() == [False, True, True, True, False, False]


def test_negative_weights_count_by_their_magnitude() -> None:
    """`weight < threshold` without abs prunes every negative weight first (rahulvigneswaran's LTH, issue 5)."""
    masks = pruning.magnitude(
        {"a": torch.tensor([-3.0, 1.0, -2.0, 0.5])},
        {"a": torch.ones(4, dtype=torch.bool)},
        {"a": 0.5},
        PruningConfig(),
        {"a": "conv"},
    )
    assert masks["a"].tolist() == [True, False, True, False]


def test_a_layer_keeps_at_least_one_weight() -> None:
    config = PruningConfig(prune_rate=0.99)
    masks = pruning.magnitude({"a": torch.ones(5)}, {"a": torch.ones(5, dtype=torch.bool)}, {"a": 1e-9}, config, KINDS)
    assert int(masks["a"].sum()) == 1


def test_rates_by_kind_fall_back_to_the_common_rate() -> None:
    assert pruning.rates(PruningConfig(prune_rate=0.2, output_rate=0.1), KINDS) == {
        "a": 0.2,
        "b": 0.2,
        "c": 0.1,
    }


def test_the_schedule_of_the_paper_is_geometric() -> None:
    config = PruningConfig(conv_rate=0.1, fc_rate=0.2, output_rate=0.1)
    assert pruning.density_after(config, 3, SIZES, KINDS) == pytest.approx({"a": 0.729, "b": 0.512, "c": 0.729})


@pytest.mark.parametrize("schedule", ["geometric", "seed", "one-shot"])
def test_the_last_round_reaches_the_final_sparsity(schedule: str) -> None:
    config = PruningConfig(rounds=5, sparsity=0.9, schedule=schedule, conv_rate=0.1, fc_rate=0.2, output_rate=0.1)
    keep = pruning.density_after(config, 5, SIZES, KINDS)
    total = sum(SIZES.values())
    assert sum(keep[name] * SIZES[name] for name in SIZES) / total == pytest.approx(0.1)
    assert keep["a"] > keep["b"]
    assert keep["a"] == pytest.approx(keep["c"])


def test_the_seeds_schedule() -> None:
    """Sparsity (100 s)^(r / R) / 100 after round r of R: for s = 0.5 and R = 5, about 2.2, 4.8, 10.5, 22.9, 50 %."""
    config = PruningConfig(rounds=5, sparsity=0.5, schedule="seed")
    sparsities = [1 - pruning.density_after(config, r, SIZES, KINDS)["a"] for r in range(6)]
    assert sparsities == pytest.approx([0, 0.02187, 0.04782, 0.10456, 0.22865, 0.5], abs=1e-5)


def test_a_sparsity_that_the_rates_cannot_reach_is_refused() -> None:
    config = PruningConfig(rounds=2, sparsity=0.5, conv_rate=0.2, fc_rate=0.0)
    with pytest.raises(InputError, match=r"hold 71.43% of the weights, so no more than 28.57% can be pruned"):
        pruning.density_after(config, 2, SIZES, KINDS)
    assert pruning.density_after(replace(config, sparsity=0.1), 2, SIZES, KINDS)["b"] == 1.0


def test_the_random_control_has_as_many_weights_in_each_layer() -> None:
    masks = pruning.magnitude(weights(0), alive(), {"a": 0.3, "b": 0.1, "c": 0.5}, PruningConfig(), KINDS)
    control = pruning.random_like(masks, seed=1)
    assert {n: int(m.sum()) for n, m in control.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert all(not torch.equal(control[name], masks[name]) for name in masks)
    assert all(torch.equal(control[name], pruning.random_like(masks, seed=1)[name]) for name in masks)


def test_global_pruning_of_a_network_of_23_million_weights_takes_seconds() -> None:
    model = models.build(models.Network("network", (3, 32, 32), 10), seed=0)
    config = PruningConfig(scope="global", prune_rate=0.8)
    masks = masking.all_alive(model)
    kinds = masking.kinds(model)
    after = pruning.magnitude(masking.prunable(model), masks, dict.fromkeys(masks, 0.2), config, kinds)
    assert masking.density(after) == pytest.approx(0.2, abs=1e-6)
