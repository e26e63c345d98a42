"""`--instability` over several seeds: mean barriers, their intervals, and verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lth_sparse.experiments.replicates import stabilities
from lth_sparse.storage.instability import Barrier
from lth_sparse.storage.record import Record
from tests.conftest import table

Lottery = Callable[..., tuple[int, str]]
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 1, "--iterations", 6, "--evaluate-every", 6,
    "--backend", "dense", "--controls", "none", "--instability", "0,3",
)  # fmt: skip


def record(*barriers: float) -> Record:
    """Of the dense network from steps 0, 10, ..."""
    rows = [Barrier(0, 1.0, 10 * n, each, each < 0.02, 0.1, 0.1, 0.1 + each, 0.0) for n, each in enumerate(barriers)]
    return Record(barriers=rows)


def test_each_step_has_its_mean_its_interval_and_its_verdict() -> None:
    found = stabilities([record(0.1, 0.004), record(0.12, 0.005), record(0.14, 0.006)], images=10000)
    assert [(row.round, row.step, row.seeds, row.verdict) for row in found] == [
        (0, 0, 3, "unstable"), (0, 10, 3, "stable"),
    ]  # fmt: skip
    assert found[0].barrier == pytest.approx(0.12)
    assert found[0].barrier_half == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-4)
    assert stabilities([record(), record()], images=10000) == []


def test_seeds_that_agree_may_differ_by_less_than_one_image() -> None:
    (row,) = stabilities([record(0.01)] * 3, images=50)
    assert (row.verdict, row.barrier_half) == ("too few seeds to say", pytest.approx(4.30265 * 0.02 / 6, rel=1e-4))


def test_the_page_of_the_seeds_has_them(tmp_path: Path, lottery: Lottery) -> None:
    out = tmp_path / "run"
    status, error = lottery(*SHORT, "--replicates", 2, "--out", out)
    assert status == 0, error
    found = table(out / "instability-summary.csv")
    assert [(row["round"], row["step"]) for row in found] == [("0", "0"), ("0", "3"), ("1", "0")]
    seeds = [table(out / f"seed-{seed}" / "instability.csv") for seed in (0, 1)]
    for row, one, other in zip(found, *seeds, strict=True):
        assert float(row["barrier"]) == pytest.approx((float(one["barrier"]) + float(other["barrier"])) / 2)
    page = (out / "report.html").read_text()
    section = page[page.index('<section id="instability">') :].split("</section>")[0]
    assert section.count("too few seeds to say") == section.count("±") == 3
    assert (out / "plots" / "instability.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"Instability: dense from step 0 too few seeds to say \(.* ± .* points\); ", error)
