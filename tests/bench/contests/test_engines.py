"""The contest with other engines for inference: which networks, who is timed, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.cases import engines as cases
from bench.cases.engines import ENGINE_CASES, FEED_FORWARD, EngineCase
from bench.cases.goals import Goal
from bench.contests import engines
from bench.sides.engines import ENGINES, Engine, channels_last
from bench.suite import tables
from lth_sparse.inference import engine

pytestmark = pytest.mark.skipif(bool(engine.refuses()), reason=engine.refuses())
CASE = EngineCase("resnet18", 2, 0.9, goals={"PyTorch, channels_last": Goal(0.0, 1e9)})


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "SIZE", 32)
    monkeypatch.setattr(cases, "TOKENS", 5)
    monkeypatch.setattr(engines, "ENGINES", {"PyTorch, channels_last": ENGINES["PyTorch, channels_last"]})


@pytest.mark.parametrize("case", [CASE, EngineCase(FEED_FORWARD, 1, 0.9)], ids=str)
def test_every_side_has_a_row_with_its_time_over_ours(case: EngineCase) -> None:
    rows = {row["name"]: row for row in engines.measure(case, seconds=0.0)}
    layouts = ["PyTorch, channels_last"] if case is CASE else []
    assert list(rows) == ["lth_sparse", "lth_sparse, layer by layer", "PyTorch", *layouts]
    assert rows["lth_sparse"]["over_ours"] == 1
    assert 0 < rows["lth_sparse"]["furthest_off"] < 1e-5
    for name in layouts:
        ratio = rows[name]["p50_milliseconds"] / rows["lth_sparse"]["p50_milliseconds"]
        assert rows[name]["over_ours"] == pytest.approx(ratio)
        assert rows[name]["verdict"] == "holds"
    heading, *lines = tables.engines(list(rows.values()))
    assert heading.split()[:3] == ["case", "side", "calls"]
    assert [str(case) in line for line in lines] == [True] * len(rows)


def test_an_engine_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, x: Tensor) -> nn.Module:
        return nn.Sequential(model, nn.Threshold(-1e9, 0), nn.Softshrink(1e-2))

    monkeypatch.setattr(engines, "ENGINES", {"wrong": Engine(wrong)})
    with pytest.raises(AssertionError, match=r"resnet18-batch-2-90%, wrong: .* off, over the largest output"):
        engines.measure(CASE, seconds=0.0)


@pytest.mark.parametrize("even", [True, False])
def test_all_but_the_first_the_last_and_depthwise_layers_are_pruned(even: bool) -> None:
    model, masks = EngineCase("mobilenet_v2", 1, 0.9, even).pruned()
    assert not model.training
    pruned = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1}
    assert set(masks) == pruned - {"features.0.0"}
    for name, mask in masks.items():
        assert mask.sum() == pytest.approx(0.1 * mask.numel(), rel=0.2), name
        assert not model.get_submodule(name).weight[~mask].any()
    # What is left in a row: as a binomial has it, or much more uneven.
    rows = masks["features.17.conv.2"].flatten(1).sum(1).float()
    assert (rows.std() > 3 * (0.09 * 960) ** 0.5) != even


def test_each_goal_is_for_an_engine_that_is_asked() -> None:
    assert {name for case in ENGINE_CASES for name in case.goals} <= set(ENGINES)
    assert len(set(map(str, ENGINE_CASES))) == len(ENGINE_CASES) == 40


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_computes_the_network(name: str) -> None:
    if reason := ENGINES[name].missing():
        pytest.skip(reason)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 5))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        network = ENGINES[name].made(model.eval(), x)
        torch.testing.assert_close(network(x), model(x), rtol=ENGINES[name].off, atol=ENGINES[name].off)


def test_channels_last_is_another_layout() -> None:
    assert channels_last(nn.Conv2d(4, 8, 3), torch.ones(1))(torch.ones(2, 4, 5, 5)).is_contiguous(
        memory_format=torch.channels_last
    )
