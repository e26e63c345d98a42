"""One lottery with and without Winograd's algorithm: what is played, what the file holds, what the page makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import accuracy
from bench.page.accuracy import section
from lth_sparse.backends import registry, winograd

pytestmark = pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="the C++ kernels cannot be used here")
TINY = (
    "--dataset", "digits", "--model", "conv2", "--rounds", "1", "--iterations", "6", "--evaluate-every", "6",
    "--batch-size", "32",
)  # fmt: skip


def test_every_seed_is_played_with_and_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = winograd.setting()
    assert accuracy.main([*TINY, "--seeds", "2", "--results", str(tmp_path)]) == 0
    assert winograd.setting() == before
    (path,) = tmp_path.glob("accuracy-*.json")
    assert path.name == "accuracy-conv2.json"
    found = json.loads(path.read_text())
    rows = found["rounds"]
    assert [(row["seed"], row["winograd"], row["round"]) for row in rows] == [
        (seed, setting, number) for seed in (0, 1) for setting in ("off", "4x4") for number in (0, 1)
    ]
    errors = {setting: [row["logit_error"] for row in rows if row["winograd"] == setting] for setting in accuracy.SIDES}
    assert errors["off"] != errors["4x4"]  # Other kernels did compute.
    lines = section(path.name, found).text()
    assert any(line.startswith("| weights left | without | with |") for line in lines)
    assert sum("+-" in line and line.startswith("|") for line in lines) == 2


def test_what_it_settles_itself_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main([*TINY, "--backend", "dense"]) == 2
    assert "--backend: this command settles it itself" in capsys.readouterr().err
    assert accuracy.main([*TINY, "--resume"]) == 2
    assert "--resume: this command settles it itself" in capsys.readouterr().err
    assert accuracy.main([*TINY, "--seeds", "0"]) == 2
    assert "--seeds 0: expected at least 1" in capsys.readouterr().err
