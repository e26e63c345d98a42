"""`python -m lth_sparse.reproduce CLAIM`: published claims, played at a size that fits, and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lth_sparse import models, reproduce
from lth_sparse.experiments import pace, scorecard
from lth_sparse.experiments.claims import CLAIMS, Barrier, Claim, Column, Size, Statement, Transfer
from lth_sparse.lottery.pruning import density_after
from lth_sparse.nn import masks as masking
from lth_sparse.settings import config
from lth_sparse.settings.config import Config
from lth_sparse.storage.summary import DOES_NOT, HOLDS, NOT_COMPARABLE, TOO_FEW, Estimate
from lth_sparse.system.errors import InputError
from tests.conftest import Killed, error_line, killed_when, rows, table
from tests.experiments.conftest import Called

BASE: dict[str, Any] = {
    "preset": "quick", "dataset": "digits", "model": "lenet-300-100", "rounds": 2, "iterations": 10,
    "evaluate_every": 10, "backend": "dense", "controls": ("random",),
}  # fmt: skip
TINY = Claim(
    "tiny",
    "nobody",
    {"one": BASE | {"instability": (0, 3)}, "other": BASE | {"rewind": "none", "controls": ()}},
    (Size("full", 2), Size("small", 3, {"iterations": 5}, {"other": {"rounds": 1}})),
    (
        Statement("one beats its random mask", "much", Column("one", 0.5), Column("one", 0.5, "accuracy_random")),
        Statement("one beats the other", "more", Column("one", 0.5), Column("other", 0.5), at_full_size=True),
        Statement("it carries over", "a lot", Column("target", 0.5), above=2.0, unit="%"),
        Statement("it is stable", "flat", Barrier("one", 1.0, -1), above=None, below=1.5),
        Statement("it stops early", "early", Column("one", 0.5, "early_stop_iteration"), above=None, below=1e6,
                  unit="steps"),
    ),
    {"target": Transfer("one", 0.6, {"optimizer": "sgd"})},
)  # fmt: skip


@pytest.fixture
def reproduced(called: Called, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Calls the command line, in a world with one more claim, and one that cannot be played."""
    monkeypatch.setitem(CLAIMS, "tiny", TINY)
    broken = replace(TINY, name="broken", runs={"one": BASE | {"optimizer": "sgd", "learning_rate": 1e30}})
    monkeypatch.setitem(CLAIMS, "broken", broken)
    return partial(called, reproduce.main)


def _column(out: Path, run: str, round: int, column: str, seeds: int) -> list[float]:
    return [float(rows(out / "tiny" / run / f"seed-{seed}")[round][column]) for seed in range(seeds)]


def test_a_claim_is_judged_by_differences_within_a_seed(tmp_path: Path, reproduced: Called) -> None:
    out = tmp_path / "out"
    status, said, error = reproduced("tiny", "--size", "small", "--out", out)
    assert status == 0, error
    beats, level, carried, stable, early = table(out / "scorecard.csv")
    densities = [float(row["density"]) for row in rows(out / "tiny" / "one" / "seed-0")]
    nearest = min((1, 2), key=lambda round: abs(densities[round] - 0.5))
    ticket = _column(out, "one", nearest, "accuracy_retrained", 3)
    other = _column(out, "one", nearest, "accuracy_random", 3)
    assert float(beats["ours"]) == pytest.approx(sum(ticket) / 3 - sum(other) / 3)
    assert (beats["size"], beats["seeds"], beats["unit"]) == ("small", "3", "points")
    assert float(beats["density"]) == pytest.approx(densities[nearest])
    assert level["verdict"] == NOT_COMPARABLE
    assert carried["verdict"] == DOES_NOT  # No accuracy is above 2.
    assert float(carried["ours"]) == pytest.approx(sum(_column(out, "target", 1, "accuracy_retrained", 3)) / 3)
    assert early["verdict"] == HOLDS
    barriers = [
        [row for row in table(out / "tiny" / "one" / f"seed-{seed}" / "instability.csv") if row["round"] == "0"]
        for seed in range(3)
    ]
    assert [[row["step"] for row in each] for each in barriers] == [["0", "3"]] * 3
    assert float(stable["ours"]) == pytest.approx(sum(float(each[1]["barrier"]) for each in barriers) / 3)
    assert (stable["density"], stable["verdict"]) == ("1.0", HOLDS)
    assert said.count("\n") == 6
    assert "tiny: it stops early: holds (published early; here" in said
    page = (out / "report.html").read_text()
    assert "1 of 1 claims are tested" in page
    assert "Size small: --iterations 5, 3 seeds" in page
    assert len(rows(out / "tiny" / "other" / "seed-0")) == 2  # Its own setting at this size, over that of all.
    ours = json.loads((out / "tiny" / "target" / "seed-1" / "config.json").read_text())
    source = json.loads((out / "tiny" / "one" / "seed-1" / "config.json").read_text())
    assert ours["config"]["training"]["optimizer"] == "sgd"
    assert ours["config"]["seed"] == source["config"]["seed"] == 1


def test_killed_it_goes_on_at_the_size_that_it_began_with(tmp_path: Path, reproduced: Called) -> None:
    out, options = tmp_path / "out", ("--replicates", 2)
    with killed_when(lambda store, written: written == 4), pytest.raises(Killed):
        reproduced("tiny", "--size", "small", *options, "--out", out)
    assert reproduced("tiny", *options, "--out", out, "--resume")[0] == 0
    assert reproduced("tiny", "--size", "small", *options, "--out", tmp_path / "whole")[0] == 0
    assert (out / "scorecard.csv").read_bytes() == (tmp_path / "whole" / "scorecard.csv").read_bytes()
    before = (out / "scorecard.csv").read_bytes()
    status, _, error = reproduced("tiny", "--size", "small", "--out", out)
    assert (status, "holds scorecard.json; add --resume" in error_line(error)) == (2, True)
    assert (out / "scorecard.csv").read_bytes() == before


def test_a_claim_that_fails_does_not_end_the_others(
    tmp_path: Path, reproduced: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in CLAIMS if name not in ("tiny", "broken")]:
        monkeypatch.delitem(CLAIMS, name)
    few = replace(TINY, transfers={}, statements=TINY.statements[:1])
    monkeypatch.setitem(CLAIMS, "tiny", few)
    status, said, error = reproduced("all", "--size", "small", "--replicates", 1, "--out", tmp_path)
    assert status == 2
    assert "broken failed: training diverged" in error
    assert f"tiny: one beats its random mask: {TOO_FEW}" in said
    page = (tmp_path / "report.html").read_text()
    assert "2 of 2 claims are tested, 1 of them failed" in page
    assert "It could not be tested: training diverged" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lth-lenett"], "there is no claim 'lth-lenett', did you mean \"lth-lenet\"?"),
        (["tiny", "--size", "smal"], "--size smal: tiny has full, small, did you mean \"small\"?"),
        (["tiny", "--size", "small", "--budget", "1min"], "give --budget, which picks a size, or --size, not both"),
        (["tiny", "--budget", "1"], "expected a time such as 90s, 20min or 1.5h, given 1"),
        (["tiny", "--size", "small", "--replicates", "0"], "--replicates 0: expected a whole number from 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_told(tmp_path: Path, reproduced: Called, arguments: list[str], says: str) -> None:
    status, _, error = reproduced(*arguments, "--out", tmp_path / "out")
    assert (status, says in error) == (2, True), error
    assert not (tmp_path / "out" / "tiny").exists()


@pytest.mark.parametrize(
    ("mean", "half", "seeds", "above", "below", "expected"),
    [
        (0.02, 0.01, 3, 0.0, 0.0, HOLDS),
        (0.02, 0.03, 3, 0.0, 0.0, TOO_FEW),
        (-0.02, 0.01, 3, 0.0, 0.0, DOES_NOT),
        (-0.002, 0.001, 3, -0.005, 0.0, HOLDS),
        (0.2, 0.01, 2, 0.0, 0.0, TOO_FEW),
        (0.10, 0.01, 3, None, 0.12, HOLDS),
        (0.50, 0.01, 3, None, 0.12, DOES_NOT),
        (0.12, 0.01, 3, None, 0.12, TOO_FEW),
    ],
)  # fmt: skip
def test_a_verdict_is_what_the_interval_allows(
    mean: float, half: float, seeds: int, above: float | None, below: float, expected: str
) -> None:
    statement = Statement("", "", Column("", 1.0), above=above, below=below)
    assert scorecard.verdict(statement, Estimate(mean, half, seeds)) == expected


def test_a_budget_takes_the_largest_size_that_fits(
    tmp_path: Path, reproduced: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks: list[tuple[int, int | None, tuple[str, ...]]] = []

    def seconds(self: pace.Paces, settings: Config) -> float:
        asks.append((settings.pruning.rounds, settings.training.iterations, settings.pruning.controls))
        return 10.0

    monkeypatch.setattr(pace.Paces, "seconds", seconds)
    asked = scorecard.Asked([TINY], {}, budget=2 * 30)  # Two seeds of three lotteries.
    assert scorecard._size(TINY, asked, "", pace.Paces()).name == "full"
    assert asks == [(2, 10, ("random",)), (2, 10, ()), (1, 10, ("random", "reinit"))]  # The last is the transfer.
    three = scorecard.Asked([TINY, TINY], {}, budget=2 * 60 - 1, seeds=1)
    assert scorecard._size(TINY, three, "", pace.Paces()).name == "full"
    with pytest.raises(
        InputError, match="--budget 59 s a claim is too little for tiny: its size small takes about 1 min 30 s"
    ):
        scorecard._size(TINY, scorecard.Asked([TINY], {}, budget=59), "", pace.Paces())
    monkeypatch.setattr(pace.Paces, "seconds", lambda self, settings: float(settings.training.iterations or 0))
    assert scorecard._size(TINY, scorecard.Asked([TINY], {}, budget=59), "", pace.Paces()).name == "small"
    assert (
        scorecard._size(TINY, scorecard.Asked([TINY], {}, budget=1), "full", pace.Paces()).name == "full"
    )  # It has begun.
    status, _, error = reproduced("tiny", "--budget", "1s", "--out", tmp_path)
    assert (status, "tiny failed: --budget 1 s a claim is too little for tiny" in error) == (2, True)


def test_a_lottery_takes_its_steps_its_evaluations_and_what_it_times() -> None:
    known = pace.Pace(step=1.0, test=10.0, validation=100.0, per_epoch=5, evaluate_every=10)
    alone, timed = known.seconds(rounds=0, iterations=0), known.seconds(0, 0) - 30
    assert known.seconds(0, 20) == pytest.approx(alone + 20 + 200)
    assert known.seconds(2, 20, controls=2) == pytest.approx(7 * 220 + 3 * timed + 10 * (3 + 2 * 6))
    paces = pace.Paces()
    once = paces.seconds(config.build(BASE))
    assert 0 < once < 60
    assert paces.seconds(config.build(BASE | {"iterations": 1010})) > once + 1000 * 1e-5


@pytest.mark.parametrize("claim", list(CLAIMS))
def test_the_runs_of_a_claim_reach_the_densities_that_it_is_about(claim: str) -> None:
    asked = scorecard.Asked([CLAIMS[claim]], {"device": "cpu"})
    for size in CLAIMS[claim].sizes:
        reached: dict[str, list[float]] = {}
        for name, settings in scorecard._runs(CLAIMS[claim], size, asked).items():
            built = config.build(settings)
            channels, pixels = 1 if "mnist" in built.data.dataset else 3, built.data.image_size or 32
            model = models.build(models.Network(built.model, (channels, pixels, pixels), 10), seed=0)
            weights = {layer: weight.numel() for layer, weight in masking.prunable(model).items()}
            kinds = masking.kinds(model)
            reached[name] = [
                sum(
                    weights[layer] * left for layer, left in density_after(built.pruning, round, weights, kinds).items()
                )
                / sum(weights.values())
                for round in range(built.pruning.rounds + 1)
            ]
        for name, each in CLAIMS[claim].transfers.items():
            reached[name] = reached[each.run]
        for statement in CLAIMS[claim].statements:
            for figure in filter(None, (statement.of, statement.less)):
                if isinstance(figure, Column | Barrier):
                    nearest = min(reached[figure.run], key=lambda left: abs(left - figure.density))
                    assert nearest == pytest.approx(figure.density, rel=0.1), (size.name, statement.says)


def test_cifar10_may_be_a_folder_of_images() -> None:
    asked = scorecard.Asked([], {"backend": "cpp"}, cifar10=Path("images"))
    for name, dataset in (("lth-conv2", "folder"), ("lth-lenet", "mnist-5k")):
        claim = CLAIMS[name]
        (settings,) = scorecard._runs(claim, claim.sizes[1], asked).values()
        built = config.build(settings)
        assert (built.data.dataset, built.backend) == (dataset, "cpp")
        assert (built.data.data_dir == "images") == (dataset == "folder")
