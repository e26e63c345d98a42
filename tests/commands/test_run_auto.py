"""`--backend auto` on the command line: what it chooses, says, keeps, replays and refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lth_sparse import run
from lth_sparse.backends import auto, registry
from lth_sparse.backends.base import Plan
from lth_sparse.backends.choices import Choice
from lth_sparse.backends.dense import DenseBackend
from lth_sparse.report import words
from tests.commands.test_run import interrupted
from tests.conftest import error_line, rows

Lottery = Callable[..., tuple[int, str]]
SHORT: tuple[object, ...] = (
    "--dataset", "digits", "--rounds", 2, "--iterations", 30, "--evaluate-every", 10, "--backend", "auto",
)  # fmt: skip
OPERATIONS = ("forward", "grad_input", "grad_weight")


class Exact(DenseBackend):
    """Computes in float64, so that a run that used it has other bits than one that did not."""

    name = "exact"

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.double()
        return super().forward(x.double(), values.double(), plan, bias).to(x.dtype)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        return super().grad_input(grad_out.double(), values.double(), plan, input_shape).to(values.dtype)

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        return super().grad_weight(x.double(), grad_out.double(), plan).to(x.dtype)


def leave_two_backends(patch: pytest.MonkeyPatch) -> None:
    known = {name: registry.get(name) for name in ("auto", "dense")} | {"exact": Exact()}
    patch.setattr(registry, "_registered", known)
    patch.setattr(
        registry,
        "_unusable",
        dict.fromkeys(known, "") | dict.fromkeys(("cpp", "triton", "cuda"), "left out of this test"),
    )


def let_exact_be_faster(patch: pytest.MonkeyPatch) -> None:
    clear = Choice("exact", {"dense": 3.0, "exact": 1.0})
    patch.setattr(auto, "_measure", lambda calls, failed, device: clear)
    patch.setattr("lth_sparse.lottery.task.side_by_side", lambda steps, device, most: [1.0, 2.0])


@pytest.fixture(autouse=True)
def two_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense and `exact` are all that there is."""
    leave_two_backends(monkeypatch)


@pytest.fixture
def exact_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measurement says so, of operations and of whole steps."""
    let_exact_be_faster(monkeypatch)


def refuse(*_: object) -> Any:
    raise AssertionError("this was to be replayed, not measured")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which `exact` was chosen for every operation of every pruned round."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        leave_two_backends(patch)
        let_exact_be_faster(patch)
        assert run.main([str(argument) for argument in (*SHORT, "--out", out)]) == 0
    return out


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lottery with masked dense PyTorch."""
    out = tmp_path_factory.mktemp("runs") / "dense"
    assert run.main([str(argument) for argument in (*SHORT, "--backend", "dense", "--out", out)]) == 0
    return out


def test_it_trains_with_what_it_chose_and_keeps_that(first: Path, dense: Path) -> None:
    choices = json.loads((first / "choices.json").read_text())
    assert {entry["backend"] for entry in choices["layers"]} == {"exact"}
    assert {entry["operation"] for entry in choices["layers"]} == set(OPERATIONS)
    assert [entry["backend"] for entry in choices["steps"]] == ["auto", "auto"]
    assert json.loads((first / "config.json").read_text())["backend"] == "auto"
    ours, theirs = rows(first, without_times=True), rows(dense, without_times=True)
    # Nothing is pruned in round 0, so masked dense PyTorch trains it, bit for bit.
    assert ours[0] == theirs[0]
    # Of many losses one may come out the same to the last bit, but not all.
    assert (first / "curves.csv").read_text() != (dense / "curves.csv").read_text()
    assert float(ours[1]["train_loss"]) == pytest.approx(float(theirs[1]["train_loss"]), rel=1e-3)
    assert [row["step_ms"] for row in rows(first)] == ["1.0"] * 3


def test_it_says_what_it_chose_and_why(first: Path, tmp_path: Path, lottery: Lottery, exact_is_faster: None) -> None:
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 0, error
    assert "backend auto (of dense, exact)" in error
    assert re.search(r"^choosing what trains the rounds took \d+\.\d\d s, \d+\.\d% of their time$", error, re.MULTILINE)
    assert "round 0: masked dense PyTorch trains it, channels_last: nothing is pruned" in error
    assert "round 1: sparse layers train it, channels_last: a step takes auto 1.00 (dense 2.00) ms" in error
    lines = [line.split() for line in error.splitlines() if line.startswith("  conv2a")]
    assert lines == [["conv2a", f"{share}%", *["exact", "1.00", "(dense", "3.00)"] * 3] for share in ("80.0", "64.0")]
    page = (first / "report.html").read_text().replace(words.NO_BREAK, " ")
    assert page.count("<details><summary>Round ") == 2
    assert "of the weights left: sparse layers train it, channels_last: a step takes auto 1.00 (dense 2.00) ms." in page
    assert "<td>exact 1.00 (dense 3.00)</td>" in page


def test_given_its_choices_a_run_is_repeated_bit_for_bit(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_measure", refuse)
    # Measured here, the whole steps would come out the other way.
    monkeypatch.setattr("lth_sparse.lottery.task.side_by_side", lambda steps, device, most: [2.0, 1.0])
    status, error = lottery(*SHORT, "--choices", first / "choices.json", "--out", tmp_path / "again")
    assert status == 0, error
    assert rows(tmp_path / "again", without_times=True) == rows(first, without_times=True)
    for name in ("curves.csv", "choices.json", "tickets/round-02.safetensors"):
        if not name.startswith("tickets"):
            assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes()


@pytest.mark.parametrize("after", [1, 3, 5])
def test_resumed_it_replays_what_it_chose_before(
    first: Path,
    tmp_path: Path,
    lottery: Lottery,
    monkeypatch: pytest.MonkeyPatch,
    exact_is_faster: None,
    after: int,
) -> None:
    """Killed in round 0, in the middle of round 1 and in the training of its random mask."""
    interrupted(tmp_path / "run", lottery, monkeypatch, after, SHORT)
    before = json.loads((tmp_path / "run" / "choices.json").read_text()) if after > 2 else {"layers": [], "steps": []}
    if after > 2:
        assert before["layers"]
    status, error = lottery("--out", tmp_path / "run", "--resume")
    assert status == 0, error
    assert rows(tmp_path / "run", without_times=True) == rows(first, without_times=True)
    afterwards = json.loads((tmp_path / "run" / "choices.json").read_text())
    assert afterwards["layers"][: len(before["layers"])] == before["layers"]


def test_a_resumed_run_measures_nothing_that_it_knows(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (*SHORT, "--choices", first / "choices.json")
    monkeypatch.setattr(auto, "_measure", refuse)
    interrupted(tmp_path / "run", lottery, monkeypatch, 3, given)
    # The same command, and --resume.
    status, error = lottery(*given, "--out", tmp_path / "run", "--resume")
    assert status == 0, error
    assert rows(tmp_path / "run", without_times=True) == rows(first, without_times=True)


def test_lost_choices_are_measured_again_and_the_training_in_progress_goes_on(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, exact_is_faster: None
) -> None:
    interrupted(tmp_path / "run", lottery, monkeypatch, 3, SHORT)
    (tmp_path / "run" / "choices.json").unlink()
    # Chosen again, masked dense PyTorch would train round 1, whose state is that of sparse layers.
    monkeypatch.setattr("lth_sparse.lottery.task.side_by_side", lambda steps, device, most: [2.0, 1.0])
    status, error = lottery("--out", tmp_path / "run", "--resume")
    assert status == 0, error
    assert rows(tmp_path / "run", without_times=True)[1]["train_loss"] == rows(first)[1]["train_loss"]


def test_where_the_whole_step_is_not_faster_masked_dense_trains(
    dense: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, exact_is_faster: None
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.task.side_by_side", lambda steps, device, most: [2.0, 2.0])
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 0, error
    assert "round 1: masked dense PyTorch trains it, channels_last: a step takes dense 2.00 (auto 2.00) ms" in error
    assert rows(tmp_path / "run", without_times=True) == rows(dense, without_times=True)
    assert [entry["backend"] for entry in json.loads((tmp_path / "run" / "choices.json").read_text())["steps"]] == [
        "dense", "dense",
    ]  # fmt: skip


def test_with_dense_alone_it_is_dense_and_measures_nothing(
    dense: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._unusable, "exact", "left out")
    monkeypatch.setattr(auto, "_measure", refuse)
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 0, error
    assert rows(tmp_path / "run", without_times=True) == rows(dense, without_times=True)
    for name in ("curves.csv", "layers.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (dense / name).read_bytes()
    assert not (tmp_path / "run" / "choices.json").exists()
    assert 'id="choices"' not in (tmp_path / "run" / "report.html").read_text()


# Wrong and missing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); expected the choices.json of a run"),
        ("{", "holds no choices of a run, or damaged ones (Expecting property name"),
        ("\udcff", "holds no choices of a run, or damaged ones"),
        ('{"layers": [], "steps": 3}', '"steps" of the file is 3, expected a list'),
        ('"backend": "quantum"', 'chose backend "quantum", which cannot be used here: there is no such backend'),
        ('"backend": "cpp"', 'chose backend "cpp", which cannot be used here: left out of this test'),
    ],
)
def test_bad_choices_are_one_line_and_leave_nothing(
    first: Path, tmp_path: Path, lottery: Lottery, content: str | None, message: str
) -> None:
    path = tmp_path / "given.json"
    if content is not None:
        if content.startswith('"backend"'):
            content = (first / "choices.json").read_text().replace('"backend": "exact"', content, 1)
        path.write_bytes(content.encode(errors="surrogateescape"))
    status, error = lottery(*SHORT, "--choices", path, "--out", tmp_path / "run")
    assert status == 2
    assert message in error_line(error)
    assert str(path) in error
    assert not (tmp_path / "run").exists()


def test_choices_made_with_other_threads_are_named_and_measured_again(
    first: Path, tmp_path: Path, lottery: Lottery, exact_is_faster: None
) -> None:
    threads = torch.get_num_threads()
    text = (first / "choices.json").read_text()
    assert f'"threads": {threads}' in text
    (tmp_path / "other.json").write_text(text.replace(f'"threads": {threads}', f'"threads": {threads + 1}'))
    status, error = lottery(*SHORT, "--choices", tmp_path / "other.json", "--out", tmp_path / "run")
    assert status == 0
    count = len(json.loads(text)["layers"]) + 2
    assert f"{count} of the {count} choices in {tmp_path / 'other.json'} were made on another device" in error
    assert rows(tmp_path / "run", without_times=True) == rows(first, without_times=True)


def test_a_resumed_run_takes_no_other_choices(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.json"
    other.write_text((first / "choices.json").read_text().replace('"exact": 1.0', '"exact": 1.5'))
    interrupted(tmp_path / "run", lottery, monkeypatch, 3, (*SHORT, "--choices", first / "choices.json"))
    status, error = lottery("--out", tmp_path / "run", "--resume", "--choices", other)
    assert status == 2
    assert "has other choices in its choices.json" in error.splitlines()[-1]
    shutil.copy(tmp_path / "run" / "config.json", tmp_path / "run" / "choices.json")
    status, error = lottery("--out", tmp_path / "run", "--resume")
    assert status == 2
    assert "choices.json holds no choices of a run" in error.splitlines()[-1]
