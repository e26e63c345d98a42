"""`python -m lth_sparse.run --instability 0,100,500`: pairs of copies, and the error between their ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lth_sparse.data.batches import Batches
from lth_sparse.lottery.training import Training
from lth_sparse.nn.forms import dense_state
from lth_sparse.nn.masks import Masks
from lth_sparse.settings import file
from lth_sparse.settings.config import Config, TrainingConfig
from lth_sparse.storage import sealed
from lth_sparse.storage.record import Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from tests.conftest import Killed, called_until_done, error_line, killed_when, rows, table

Lottery = Callable[..., tuple[int, str]]
TABLES = ("instability.csv", "instability-paths.csv")
# Five steps an epoch.
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 1, "--iterations", 12, "--evaluate-every", 6,
    "--batch-size", 256, "--milestones", 0.5, "--backend", "cpp", "--controls", "random", "--rewind-iteration", 3,
    "--instability", "7,0,3", "--augmentation", "crop",
)  # fmt: skip
PAIRS = [("0", "0"), ("0", "3"), ("0", "7"), ("1", "3")]


class Begun:
    """What a training began with."""

    def __init__(self, training: Training, masks: Masks, batches: Batches, config: TrainingConfig) -> None:
        self.weights = {name: value.clone() for name, value in dense_state(training.model).items()}
        self.masks, self.batches, self.config, self.step = masks, batches, config, training.iteration
        self.optimizer = type(training.optimizer), dict(training.optimizer.state)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[int, str], Begun], dict[int, object]]:
    """A run, what each of its trainings began with, and the weights of the dense training at each of its steps."""
    from lth_sparse import run

    begun: dict[tuple[int, str], Begun] = {}
    dense: dict[int, object] = {}
    begin, step = Training.__init__, Training.step

    def noted_begin(self: Training, model: nn.Module, masks: Masks, data: object, *others: object) -> None:
        begin(self, model, masks, data, *others)  # type: ignore[arg-type]
        begun[others[2]] = Begun(self, masks, others[0], others[1])  # type: ignore[index, arg-type]

    def noted_step(self: Training) -> None:
        step(self)
        if (self.round, self._arm) == (0, "ticket"):
            dense[self.iteration] = {name: value.clone() for name, value in dense_state(self.model).items()}

    out = tmp_path_factory.mktemp("instability") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", noted_begin)
        patch.setattr(Training, "step", noted_step)
        assert run.main([*map(str, SHORT), "--out", str(out)]) == 0
    dense[0] = begun[0, "ticket"].weights
    return out, begun, dense


Played = tuple[Path, dict[tuple[int, str], Begun], dict[int, dict[str, Tensor]]]


def test_two_copies_differ_in_the_order_of_their_images_and_in_nothing_else(played: Played) -> None:
    _, begun, dense = played
    pairs = {(0, "ticket"): (0, "copy-2-from-0")}
    pairs |= {(0, f"copy-1-from-{step}"): (0, f"copy-2-from-{step}") for step in (3, 7)}
    pairs[1, "ticket"] = (1, "copy-2-from-3")
    assert {*pairs, *pairs.values(), (1, "random")} == {key for key in begun if key[1] != "timing"}
    for one, other in ((begun[first], begun[second]) for first, second in pairs.items()):
        assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
        assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
        assert (one.step, one.config, one.optimizer) == (other.step, other.config, other.optimizer)
        assert one.optimizer[1] == {}
        assert one.batches.seed != other.batches.seed
        assert not torch.equal(one.batches.plan(1), other.batches.plan(1))
    for step in (0, 3, 7):
        copied = begun[0, f"copy-2-from-{step}"]
        assert copied.step == step
        assert all(torch.equal(value, dense[step][name]) for name, value in copied.weights.items())


def test_each_pair_has_its_row_and_its_points(played: Played) -> None:
    out, *_ = played
    found, points = (table(out / name) for name in TABLES)
    assert [(row["round"], row["step"]) for row in found] == PAIRS
    rounds = rows(out)
    for row in found:
        own = [each for each in points if (each["round"], each["step"]) == (row["round"], row["step"])]
        assert [float(each["position"]) for each in own] == pytest.approx([number / 29 for number in range(30)])
        errors = [float(each["test_error"]) for each in own]
        first, second, highest = (float(row[f"error_{name}"]) for name in ("first", "second", "highest"))
        assert (first, second, highest) == (errors[0], errors[-1], max(errors))
        assert float(row["barrier"]) == pytest.approx(highest - (first + second) / 2)
        assert row["stable"] == str(float(row["barrier"]) < 0.02)
        train = [float(each["train_error"]) for each in own]
        assert float(row["train_barrier"]) == pytest.approx(max(train) - (train[0] + train[-1]) / 2)
        assert row["density"] == rounds[int(row["round"])]["density"]
        if row["round"] != "0" or row["step"] == "0":  # Their first copy is the round's own training.
            assert first == 1 - float(rounds[int(row["round"])]["accuracy_retrained"])


@pytest.mark.usefixtures("without_plots")
def test_nothing_else_of_a_run_is_changed_by_it(played: Played, tmp_path: Path, lottery: Lottery) -> None:
    out, *_ = played
    assert lottery(*SHORT, "--instability", "none", "--out", tmp_path / "run")[0] == 0
    assert rows(out, without_times=True) == rows(tmp_path / "run", without_times=True)
    assert set(rows(out)[0]) == {column.name for column in fields(Round)}
    assert not any((tmp_path / "run" / name).exists() for name in TABLES)
    assert 'id="instability"' not in (tmp_path / "run" / "report.html").read_text()


def test_the_report_shows_it_and_every_copy_is_proved(played: Played) -> None:
    out, *_ = played
    page = (out / "report.html").read_text()
    assert page.count('<section id="instability">') == 1
    assert page[page.index('id="instability"') :].split("</section>")[0].count("<tr") == 1 + len(PAIRS)
    for name in ("instability", "instability-paths"):
        assert (out / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    proofs = RunDirectory(out, print).read_record().proofs
    for arm in ("copy-1-from-7", "copy-2-from-7"):
        assert len({proof.statement for proof in proofs if (proof.round, proof.arm) == (0, arm)}) == 7


@pytest.mark.usefixtures("without_plots")
def test_killed_after_every_state_it_ends_as_one_that_never_was(
    played: Played, tmp_path: Path, lottery: Lottery
) -> None:
    whole, *_ = played
    out = tmp_path / "run"
    (status, error), kills = called_until_done(lambda: lottery(*SHORT, "--out", out, "--resume"))
    assert status == 0, error
    assert kills > 15
    for name in (*TABLES, "curves.csv", "tickets/round-01.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows(out, without_times=True) == rows(whole, without_times=True)


def in_the_second_copy(store: RunDirectory, written: int) -> bool:
    """Whether the newest state is of the second copy from step 7."""
    newest = sorted((store.path / "state").glob("[0-9]*"))[-1]
    return bool(sealed.read(newest)[1]["arm"] == "copy-2-from-7")


@pytest.mark.usefixtures("without_plots")
def test_what_a_copy_needs_and_is_lost_is_named(tmp_path: Path, lottery: Lottery) -> None:
    out = tmp_path / "run"
    with killed_when(in_the_second_copy), pytest.raises(Killed):
        lottery(*SHORT, "--out", out)
    kept, newest = out / "state" / "step-7.safetensors", sorted((out / "state").glob("[0-9]*"))[-1]
    weights = kept.read_bytes()
    kept.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    status, error = lottery("--out", out, "--resume")
    assert status == 2
    assert "the weights of step 7, from which --instability trains two copies, are lost" in error.splitlines()[-1]
    kept.write_bytes(weights)
    tensors, data = sealed.read(newest)
    sealed.write(newest, {name: value for name, value in tensors.items() if not name.startswith("twin/")}, data)
    status, error = lottery("--out", out, "--resume")
    assert (status, "it has no twin weights" in error.splitlines()[-1]) == (2, True)


@pytest.mark.usefixtures("without_plots")
def test_the_command_says_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], lottery: Lottery) -> None:
    from lth_sparse import run

    given = [*map(str, SHORT), "--instability", "0", "--out", str(tmp_path / "run")]
    assert run.main(given) == 0
    said = capsys.readouterr()
    assert said.err.count("the test error on the line between them rises by ") == 2
    (line,) = [each for each in said.out.splitlines() if each.startswith("Instability: the dense network from step 0 ")]
    assert "; tickets from step 3, " in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--instability", "0,12"), "--instability 12: expected steps before the 12 of a training run are over"),
        (("--instability", "0,-1"), "--instability (0, -1): expected steps of the dense training, from 0 on"),
        (("--instability", "5,0,5"), "--instability: 5 is given twice"),
        (("--instability", "soon"), "expected steps such as 0,100,500, given 'soon'"),
        (("--instability", "1.5"), "expected steps such as 0,100,500, given '1.5'"),
        (("--instability", ""), "expected steps such as 0,100,500, given ''"),
        (
            ("--rewind", "none", "--controls", "none"),
            "--instability trains copies of tickets from their rewind weights",
        ),
        (("--rewind", "learning-rate"), "and --rewind learning-rate goes back to none: give it --rewind weights"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    tmp_path: Path, lottery: Lottery, given: tuple[str, ...], message: str
) -> None:
    status, error = lottery(*SHORT, *given, "--out", tmp_path / "run")
    assert status == 2
    assert message in error_line(error)
    assert not (tmp_path / "run").exists()


def test_settings_of_files_and_of_older_runs(tmp_path: Path) -> None:
    for text, steps in (("[0, 100]", (0, 100)), ("'0,100'", (0, 100)), ("[]", ()), ("none", ())):
        (tmp_path / "settings.yaml").write_text(f"instability: {text}\n")
        assert file.read(tmp_path / "settings.yaml") == {"instability": steps}
    settings = Config().to_json()
    del settings["pruning"]["instability"]
    assert Config.from_json(settings).pruning.instability == ()
    record = Record().to_json()
    del record["barriers"], record["paths"]
    assert Record.from_json(json.loads(json.dumps(record))) == Record()
