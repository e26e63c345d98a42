"""The command line as a person uses it: what a run leaves, again and again the same, interrupted, wrong, missing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lth_sparse as lth
from lth_sparse.backends import registry
from lth_sparse.backends.dense import DenseBackend
from lth_sparse.lottery import saving
from lth_sparse.lottery.proof import Weights
from lth_sparse.nn.masks import prunable
from lth_sparse.storage import sealed
from tests.conftest import Killed, error_line, killed_when, rows

Lottery = Callable[..., tuple[int, str]]
SHORT: tuple[object, ...] = (
    "--dataset", "digits", "--rounds", "2", "--iterations", "60", "--evaluate-every", "20", "--backend", "dense",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds on digits, by `python -m lth_sparse.run` itself."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    done = command(*SHORT, "--out", out).communicate()
    assert (out / "report.html").is_file(), done
    return out


def of_folder(images: Path) -> tuple[object, ...]:
    """The options that run on the few images of `image_folder`."""
    return ("--dataset", "folder", "--data-dir", images, "--batch-size", 10)


def command(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lth_sparse.run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


# What it leaves


def test_a_run_leaves_what_the_design_says(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {"config.json", "rounds.csv", "report.html"} <= names
    assert {f"tickets/round-0{number}.safetensors" for number in range(3)} <= names
    assert any(name.startswith("plots/") and name.endswith(".png") for name in names)
    assert not any("state" in name or name.endswith(".part") for name in names)
    table = rows(finished)
    assert [row["round"] for row in table] == ["0", "1", "2"]
    assert {
        "round", "density", "sparsity", "accuracy_before_prune", "accuracy_after_prune", "accuracy_retrained",
        "step_ms", "dense_step_ms", "speedup", "max_relative_error", "seconds",
    } <= table[0].keys()  # fmt: skip
    assert all(row["dataset"] == "digits" for row in table)
    assert [float(row["density"]) for row in table] == sorted([float(row["density"]) for row in table])[::-1]
    for row in table:
        assert float(row["accuracy_retrained"]) > 0.8
        assert float(row["max_relative_error"]) < 1e-5
        assert float(row["speedup"]) == float(row["dense_step_ms"]) / float(row["step_ms"]) > 0
    for row in table[1:]:
        assert float(row["accuracy_before_prune"]) == float(table[int(row["round"]) - 1]["accuracy_retrained"])
        assert row["accuracy_random"] != ""


def test_the_configuration_is_enough_to_run_it_again(finished: Path) -> None:
    info = json.loads((finished / "config.json").read_text())
    assert info["command"].startswith("python -m lth_sparse.run --dataset digits")
    assert info["dataset"]["name"] == "digits"
    assert info["backend"] == "dense"
    assert {"torch", "python", "processor", "threads", "device", "commit"} <= info["environment"].keys()
    assert len(info["rewind"]["sha256"]) == 64


def test_what_is_recorded_names_no_home(
    image_folder: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(image_folder.parent))
    out = image_folder.parent / "run"
    given = ("--model", "small", "--rounds", 1, "--iterations", 3, *of_folder(image_folder), "--out", out)
    status, error = lottery(*given)
    assert status == 0, error
    info = json.loads((out / "config.json").read_text())
    assert info["config"]["data"]["data_dir"] == f"~/{image_folder.name}"
    assert f"--data-dir ~/{image_folder.name} " in info["command"]
    for name in ("config.json", "report.html", "record.json", "rounds.csv"):
        assert str(image_folder.parent) not in (out / name).read_text()
    for ticket in (out / "tickets").iterdir():
        assert str(image_folder.parent).encode() not in ticket.read_bytes()
    assert lottery(*given, "--resume")[0] == 0
    info["config"]["data"]["data_dir"] = str(image_folder)  # As runs of version 0.1.0 have it.
    (out / "config.json").write_text(json.dumps(info))
    assert lottery(*given, "--resume")[0] == 0


def test_a_notice_names_no_home(
    tmp_path: Path, lottery: Lottery, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ("--rounds", 0, "--iterations", 1, "--data-dir", tmp_path / "data", "--out", tmp_path / "run")
    status, error = lottery(*given)
    assert status == 0, error
    assert "not whole under ~/data" in json.loads((tmp_path / "run" / "config.json").read_text())["dataset"]["notice"]


def test_tickets_hold_the_recorded_rewind_weights(finished: Path) -> None:
    info = json.loads((finished / "config.json").read_text())
    dense = lth.read_ticket(finished / "tickets" / "round-00.safetensors")
    assert sealed.digest(dense.weights) == info["rewind"]["sha256"]
    for row in rows(finished):
        ticket = lth.load_ticket(finished / "tickets" / f"round-0{row['round']}.safetensors").ticket
        assert sum(int(mask.sum()) for mask in ticket.masks.values()) == int(row["live_weights"])
        assert ticket.metadata["dataset"] == "digits"
        assert ticket.metadata["round"]["accuracy_retrained"] == float(row["accuracy_retrained"])
        for layer, mask in ticket.masks.items():
            saved = dense.weights[f"{layer}.weight"]
            assert torch.equal(ticket.weights[f"{layer}.weight"], saved * mask)


def test_every_round_is_proved_for_both_arms(finished: Path) -> None:
    proofs = json.loads((finished / "record.json").read_text())["record"]["proofs"]
    checked = {(proof["round"], proof["arm"]) for proof in proofs if proof["statement"].startswith("w == w0 * mask")}
    assert checked == {(0, "ticket"), (1, "ticket"), (1, "random"), (2, "ticket"), (2, "random")}


def test_the_same_command_gives_the_same_rounds(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    assert lottery(*SHORT, "--out", tmp_path / "again")[0] == 0
    assert rows(tmp_path / "again", without_times=True) == rows(finished, without_times=True)
    assert lottery(*SHORT, "--seed", 1, "--out", tmp_path / "other")[0] == 0
    assert rows(tmp_path / "other", without_times=True) != rows(finished, without_times=True)


@pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="the C++ kernels cannot be used here")
@pytest.mark.parametrize("backend", ["cpp", "auto"])
def test_deterministic_algorithms_give_the_same_rounds_and_tickets(
    backend: str, tmp_path: Path, lottery: Lottery, without_plots: None
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    given = (*SHORT[:-1], backend, "--rounds", 1, "--iterations", 10, "--controls", "none")
    torch.use_deterministic_algorithms(True)
    try:
        assert lottery(*given, "--out", first)[0] == 0
        choices = ("--choices", first / "choices.json") if backend == "auto" else ()
        assert lottery(*given, *choices, "--out", again)[0] == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert rows(first, without_times=True) == rows(again, without_times=True)
    for number in range(2):
        ours, theirs = (lth.read_ticket(out / f"tickets/round-0{number}.safetensors") for out in (first, again))
        for kind in ("masks", "weights"):
            here, there = getattr(ours, kind), getattr(theirs, kind)
            assert here.keys() == there.keys()
            assert all(torch.equal(here[name], there[name]) for name in here)


def test_off_a_terminal_a_round_is_one_plain_line(tmp_path: Path, lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--controls", "none", "--out", tmp_path / "run")
    lines = [line for line in error.splitlines() if line.startswith("round ")]
    assert status == 0
    assert len(lines) == 3
    assert "\r" not in error
    assert "\x1b" not in error
    for part in ("epoch 3", "loss ", "accuracy ", "images/s", "left"):
        assert part in lines[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model", "conv2", "--scope", "global", "--sparsity", "0.9"),
        ("--schedule", "one-shot", "--sparsity", "0.95"),
        ("--schedule", "seed", "--sparsity", "0.5", "--normalization", "half"),
        ("--model", "resnet20", "--rewind-iteration", "7", "--optimizer", "sgd", "--augmentation", "crop"),
        ("--model", "lenet-300-100", "--prune-rate", "0.3", "--controls", "none"),
        ("--model", "network", "--rounds", "0", "--iterations", "2", "--batch-size", "8"),
    ],
)
def test_the_variants_of_the_lottery(tmp_path: Path, lottery: Lottery, arguments: tuple[str, ...]) -> None:
    short = ("--dataset", "digits", "--rounds", 2, "--iterations", 12, "--evaluate-every", 6)
    status, error = lottery(*short, *arguments, "--out", tmp_path / "run")
    assert status == 0, error
    table = rows(tmp_path / "run")
    if "--sparsity" in arguments:
        wanted = float(arguments[arguments.index("--sparsity") + 1])
        assert float(table[-1]["sparsity"]) == pytest.approx(wanted, abs=1e-3)
    if "one-shot" in arguments:
        assert table[2]["accuracy_before_prune"] == table[0]["accuracy_retrained"]
    proofs = json.loads((tmp_path / "run" / "record.json").read_text())["record"]["proofs"]
    assert {proof["round"] for proof in proofs} == {int(row["round"]) for row in table}


def test_late_rewinding_goes_back_to_the_weights_of_its_step(tmp_path: Path, lottery: Lottery) -> None:
    """The rewind weights of step 7 are those that a training of the same schedule has after seven steps."""
    common = (
        "--dataset", "digits", "--iterations", 12, "--evaluate-every", 6, "--controls", "none", "--rounds", 1,
    )  # fmt: skip
    lottery(*common, "--rewind-iteration", 7, "--out", tmp_path / "late")
    lottery(*common, "--rewind-iteration", 0, "--out", tmp_path / "init")
    late, init = (lth.read_ticket(tmp_path / name / "tickets" / "round-00.safetensors") for name in ("late", "init"))
    assert not torch.equal(late.weights["conv1a.weight"], init.weights["conv1a.weight"])
    curves = (tmp_path / "late" / "curves.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in curves if line.startswith("1,ticket")] == ["12"]


def test_a_folder_of_images_goes_through(image_folder: Path, tmp_path: Path, lottery: Lottery) -> None:
    arguments = (*of_folder(image_folder), "--epochs", 2, "--rounds", 1)
    status, error = lottery(*arguments, "--augmentation", "crop-flip", "--out", tmp_path / "run")
    assert status == 0, error
    assert rows(tmp_path / "run")[0]["dataset"] == "folder"


def test_without_cifar10_the_notice_cannot_be_missed(tmp_path: Path, lottery: Lottery, offline: None) -> None:
    arguments = (
        "--rounds",
        1,
        "--iterations",
        10,
        "--data-dir",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
    )
    status, error = lottery(*arguments)
    assert status == 0
    assert "NOTICE" in error
    assert "DIGITS" in error
    assert {row["dataset"] for row in rows(tmp_path / "run")} == {"digits"}
    assert "DIGITS" in (tmp_path / "run" / "report.html").read_text()


# Interrupted


def wait_for_states(out: Path, number: int, process: subprocess.Popen[str]) -> None:
    """Until the run under `out` has written its state number `number` (a state an epoch, counted from 0)."""
    while not (out / "state" / f"{number:06}.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def test_killed_again_and_again_a_run_ends_with_the_same_table(
    finished: Path, tmp_path: Path, lottery: Lottery
) -> None:
    """Five trainings of three epochs, each of which writes a state at its first and its last at least."""
    out = tmp_path / "killed"
    for state in (1, 4, 7):
        process = command(*SHORT, "--out", out, "--resume")
        wait_for_states(out, state, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    status, error = lottery("--out", out, "--resume")
    assert status == 0, error
    assert rows(out, without_times=True) == rows(finished, without_times=True)
    for name in ("curves.csv", "layers.csv", "tickets/round-00.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    status, error = lottery(*SHORT, "--out", out, "--resume")
    assert (status, "finished already" in error) == (0, True)


def interrupted(
    out: Path,
    lottery: Lottery,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    arguments: tuple[object, ...] = SHORT,
) -> None:
    """Leaves a run under `out` that was stopped right after it had written `after` states."""
    with killed_when(lambda store, written: written == after), pytest.raises(Killed):
        lottery(*arguments, "--out", out)


@pytest.mark.parametrize("harm", ["cut short", "flipped"])
def test_a_damaged_state_is_named_and_the_one_before_it_used(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    out = tmp_path / "run"
    interrupted(out, lottery, monkeypatch, after=8)
    states = sorted((out / "state").glob("0*.safetensors"))
    assert len(states) == 2
    content = states[-1].read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    states[-1].write_bytes(content[:middle] if harm == "cut short" else flipped)
    status, error = lottery("--out", out, "--resume")
    assert status == 0
    assert f"refused: {states[-1]} is damaged" in error
    assert rows(out, without_times=True) == rows(finished, without_times=True)


def test_lost_rewind_weights_are_made_again_and_wrong_ones_refused(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(out, lottery, monkeypatch, after=5)
    shutil.copytree(out, tmp_path / "copy")
    rewind = out / "state" / "rewind.safetensors"
    rewind.write_bytes(rewind.read_bytes()[:-5])
    status, error = lottery("--out", out, "--resume")
    assert (status, "refused" in error) == (0, True)
    assert rows(out, without_times=True) == rows(finished, without_times=True)
    shutil.copytree(tmp_path / "copy", tmp_path / "fallen_back")
    (tmp_path / "fallen_back" / "state" / "rewind.safetensors").unlink()
    assert lottery("--out", tmp_path / "fallen_back", "--resume")[0] == 0
    assert rows(tmp_path / "fallen_back", without_times=True) == rows(finished, without_times=True)
    path = tmp_path / "copy" / "state" / "rewind.safetensors"
    weights, metadata = sealed.read(path)
    weights["conv1a.weight"][0, 0, 0, 0] += 1
    sealed.write(path, weights, metadata)
    status, error = lottery("--out", tmp_path / "copy", "--resume")
    assert status == 2
    assert "not those of its record" in error


def test_a_kill_before_the_report_is_mended(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "report.html").unlink()
    assert lottery("--out", tmp_path / "copy", "--resume")[0] == 0
    assert (tmp_path / "copy" / "report.html").read_bytes() == (finished / "report.html").read_bytes()


def test_resuming_with_other_settings_is_refused(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "run", lottery, monkeypatch, after=2)
    capsys.readouterr()
    status, error = lottery("--out", tmp_path / "run", "--resume", "--seed", 3)
    assert status == 2
    assert "--seed 3: the run under --out has 0" in error_line(error)


def test_a_disk_that_fills_up_in_mid_run_loses_nothing(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 2
    assert "No space left on device" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not list((tmp_path / "run").rglob("*.part"))
    assert lottery("--out", tmp_path / "run", "--resume")[0] == 0
    assert rows(tmp_path / "run", without_times=True) == rows(finished, without_times=True)


@pytest.mark.parametrize("iterations", [1, 60])
def test_a_training_that_diverges_stops_the_run(tmp_path: Path, lottery: Lottery, iterations: int) -> None:
    status, error = lottery(*SHORT, "--iterations", iterations, "--learning-rate", "1e20", "--out", tmp_path / "run")
    assert status == 2
    assert "training diverged: the loss is" in error.splitlines()[-1]


def test_a_run_that_diverges_keeps_its_last_good_state_and_names_the_layer_from_there(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that grows until it is too large: the warm-up of one that is."""
    out = tmp_path / "run"
    short = (*SHORT, "--model", "lenet-300-100", "--optimizer", "sgd", "--learning-rate", "300", "--warmup", 1000)
    monkeypatch.setattr(saving, "LARGEST_SHARE", float("inf"))
    status, error = lottery(*short, "--momentum", "0", "--evaluate-every", 60, "--out", out)
    said = re.search(r"after (\d+) steps of round 0 \(ticket\); lower --learning-rate.*; step (\d+) of this", error)
    assert (status, said is not None) == (2, True), error
    states = sorted((out / "state").glob("[0-9]*"))
    for path in states:
        tensors, data = sealed.read(path)
        assert all(bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point())
    assert data["training"]["iteration"] == int(said[2]) < int(said[1])
    status, error = lottery("--out", out, "--resume", "--check-finite")
    assert status == 2
    assert re.search(r"training diverged: .* the first layer with .* is \w+ \(Linear\)", error), error
    assert sorted((out / "state").glob("[0-9]*")) == states


def test_a_run_does_not_go_on_as_another_one(
    image_folder: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed images, or a changed config.json, would give a table that no single run could give."""
    out = tmp_path / "run"
    interrupted(out, lottery, monkeypatch, 2, (*of_folder(image_folder), "--epochs", "3", "--rounds", "1"))
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config.replace('"seed": 0', '"seed": 1'))
    status, error = lottery("--out", out, "--resume")
    assert (status, "the images (their SHA-256)" in error or "config.json" in error) == (2, True)
    for content in ("{", '{"config": {}}', '{"config": 5}', config.replace('"batch_size": 10', '"batch_size": "x"')):
        (out / "config.json").write_text(content)
        status, error = lottery("--out", out, "--resume")
        assert (status, "config.json" in error_line(error)) == (2, True)
    (out / "config.json").write_text(config.replace('"learning_rate": 0.002', '"learning_rate": 0.003'))
    status, error = lottery("--out", out, "--resume")
    assert (status, "is not what the run began with" in error) == (2, True)
    (out / "config.json").write_text(config)
    Image.new("RGB", (12, 12), "red").save(image_folder / "train" / "dark" / "0000.png")
    status, error = lottery("--out", out, "--resume")
    assert (status, "the images (their SHA-256) was" in error_line(error)) == (2, True)


def test_two_processes_do_not_write_one_run(tmp_path: Path, lottery: Lottery) -> None:
    from lth_sparse.storage.run_directory import RunDirectory

    with RunDirectory(tmp_path / "run", print).held(new=False):
        status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 2
    assert "another process is writing there" in error_line(error)


def test_a_run_that_ends_while_another_loads_its_images_is_not_replaced(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lth_sparse import data

    load = data.load

    def slowly(*arguments: Any) -> Any:
        shutil.copytree(finished, tmp_path / "run")
        return load(*arguments)

    monkeypatch.setattr("lth_sparse.data.load", slowly)
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 2
    assert "holds another run; add --resume" in error_line(error)
    for path in finished.rglob("*"):
        there = tmp_path / "run" / path.relative_to(finished)
        assert path.is_dir() or there.read_bytes() == path.read_bytes()


def test_a_run_that_lost_its_states_is_not_taken_for_finished(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(out, lottery, monkeypatch, after=8)
    assert (out / "rounds.csv").exists()
    shutil.rmtree(out / "state")
    status, error = lottery("--out", out, "--resume")
    assert status == 0
    assert "no whole state to go on from: the run starts from its beginning" in error
    assert rows(out, without_times=True) == rows(finished, without_times=True)


def test_a_damaged_record_of_a_finished_run_is_named(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy" / "record.json"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    status, error = lottery("--out", tmp_path / "copy", "--resume")
    assert (status, f"{path} is damaged" in error_line(error)) == (2, True)
    assert (tmp_path / "copy" / "rounds.csv").read_bytes() == (finished / "rounds.csv").read_bytes()


def test_another_backend_trains_sparse_layers(
    finished: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is registered computes the run: packed once a mask, and the lottery comes out as with masked dense."""
    calls: dict[str, int] = {"pack": 0, "forward": 0, "grad_input": 0, "grad_weight": 0}

    class Counting(DenseBackend):
        name = "counting"

        def __getattribute__(self, name: str) -> object:
            if name in calls:
                calls[name] += 1
            return super().__getattribute__(name)

    monkeypatch.setitem(registry._registered, "counting", Counting())
    monkeypatch.setitem(registry._unusable, "counting", "")
    status, error = lottery(*SHORT, "--backend", "counting", "--rewind-iteration", 3, "--out", tmp_path / "late")
    assert status == 0, error
    status, error = lottery(*SHORT, "--backend", "counting", "--out", tmp_path / "run")
    assert status == 0, error
    assert all(calls.values())
    assert calls["forward"] > 10 * calls["pack"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["backend"] == "counting"
    for row, dense in zip(rows(tmp_path / "run"), rows(finished), strict=True):
        assert row["live_weights"] == dense["live_weights"]
        assert float(row["accuracy_retrained"]) == pytest.approx(float(dense["accuracy_retrained"]), abs=0.03)
        assert float(row["max_relative_error"]) < 1e-5
    # Killed and resumed, it ends with the same bits too.
    with monkeypatch.context() as patch:
        interrupted(tmp_path / "again", lottery, patch, 8, (*SHORT, "--backend", "counting"))
    assert lottery("--out", tmp_path / "again", "--resume")[0] == 0
    assert rows(tmp_path / "again", without_times=True) == rows(tmp_path / "run", without_times=True)


def test_a_failed_proof_stops_the_run(tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch) -> None:
    def alias(model: torch.nn.Module) -> Weights:
        return dict(model.state_dict())

    monkeypatch.setattr("lth_sparse.lottery.proof.copy_of", alias)
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 2
    assert "the rewind is not proved: 'the saved weights are a copy'" in error
    assert not (tmp_path / "run" / "rounds.csv").exists()


def test_masks_not_applied_after_a_step_stop_the_run(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.held_masks.prunable", lambda model: dict.fromkeys(prunable(model)) and {})
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 2
    assert "every pruned weight is exactly 0 after training" in error


# Wrong and missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "conv44"), 'did you mean "conv4"'),
        (("--dataset", "digit"), 'did you mean "digits"'),
        (("--backend", "tritn"), 'did you mean "triton"'),
        (("--preset", "quik"), 'did you mean "quick"'),
        (("--round", "3"), 'did you mean "--rounds"'),
        (("--rounds", "-1"), "--rounds -1"),
        (("--rounds", "many"), "--rounds"),
        (("--sparsity", "1.0"), "--sparsity 1.0"),
        (("--sparsity", "-0.5"), "--sparsity -0.5"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "sofa"), "--device sofa"),
        (("--backend", "cuda"), 'backend "cuda" cannot be used here'),
        (("--rewind-iteration", "60"), "expected fewer than the 60 steps"),
        (("--dataset", "folder", "--data-dir", "/nowhere"), "/nowhere/train is missing"),
        (("--dataset", "folder", "--data-dir", "/"), "is missing"),
        (("--model", "vgg16", "--image-size", "8"), "needs images of at least 16x16 pixels"),
        (("--resume",), "give --out"),
        (("",), "unrecognized arguments"),
        (("--milestones", "half"), "expected fractions such as 0.5,0.75, given half"),
        (("--device", "cpu:5"), "--device cpu:5"),
        (("--data-dir", "~nobody-here/x"), "--data-dir ~nobody-here/x"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    lottery: Lottery,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = () if "--resume" in arguments else ("--out", tmp_path / "run")
    status, error = lottery(*SHORT, *extra, *arguments)
    assert status == 2
    assert message in error_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_ours_is_one_line_and_its_traceback_is_kept(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("lth_sparse.data.load", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 1
    assert "unexpected ValueError: two lines; please report it with" in error_line(error)
    (kept,) = tmp_path.glob("lth_sparse-traceback-*.txt")
    assert "Traceback" in kept.read_text()


def test_a_broken_image_leaves_nothing(image_folder: Path, tmp_path: Path, lottery: Lottery) -> None:
    (image_folder / "train" / "dark" / "0001.png").write_bytes(b"broken")
    status, error = lottery("--dataset", "folder", "--data-dir", image_folder, "--out", tmp_path / "run")
    assert status == 2
    assert "0001.png is broken" in error_line(error)
    assert not (tmp_path / "run").exists()


def test_an_out_that_holds_something_is_refused(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    before = (finished / "rounds.csv").read_bytes()
    status, error = lottery(*SHORT, "--out", finished)
    assert (status, "holds another run; add --resume" in error_line(error)) == (2, True)
    assert (finished / "rounds.csv").read_bytes() == before
    (tmp_path / "report.html").write_text("mine")
    status, error = lottery(*SHORT, "--out", tmp_path)
    assert (status, "holds report.html" in error_line(error)) == (2, True)
    status, error = lottery(*SHORT, "--out", tmp_path / "report.html")
    assert (status, "is a file" in error_line(error)) == (2, True)
    status, error = lottery(*SHORT, "--out", "/proc/nowhere")
    assert (status, "/proc/nowhere cannot be made" in error_line(error)) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk takes root")
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, lottery: Lottery) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        status, error = lottery(*SHORT, "--out", disk / "run")
        left = [path for path in disk.rglob("*") if path.name.endswith(".part")]
    finally:
        subprocess.run(["umount", disk], check=True)
    assert status == 2
    assert "No space left on device" in error.splitlines()[-1]
    assert left == []


def test_without_out_runs_are_numbered(tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert lottery("--dataset", "digits", "--rounds", 0, "--iterations", 2)[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["quick-01", "quick-02"]


def test_names_that_a_terminal_cannot_show_and_a_home_in_quotes(tmp_path: Path) -> None:
    short = ("--dataset", "digits", "--rounds", "0", "--iterations", "2", "--backend", "dense", "--out")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "HOME": str(tmp_path)}
    out = os.fsencode("~/r\u00e9sultats") + b"\xff"
    arguments = [sys.executable, "-m", "lth_sparse.run", *short, out]
    done = subprocess.run(arguments, env=environment, capture_output=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert b"r\\xe9sultats\\udcff" in done.stdout
    assert (tmp_path / os.fsdecode("r\u00e9sultats".encode() + b"\xff") / "report.html").is_file()


def test_a_closed_standard_error(tmp_path: Path) -> None:
    program = f"exec 2>&-; exec {sys.executable} -m lth_sparse.run --nonsense"
    done = subprocess.run(["sh", "-c", program], capture_output=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (2, b"")


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from lth_sparse import run
    from lth_sparse.settings import config
    from lth_sparse.settings.checks import flag

    with pytest.raises(SystemExit) as done:
        run.main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(flag(setting.name) in text for setting, _, _ in config.settings())


def test_an_image_is_never_part_of_what_a_run_leaves(image_folder: Path, tmp_path: Path, lottery: Lottery) -> None:
    """Results can be committed; images cannot."""
    arguments = (*of_folder(image_folder), "--epochs", 1, "--rounds", 0)
    assert lottery(*arguments, "--out", tmp_path / "run")[0] == 0
    sizes = {Image.open(path).size for path in (tmp_path / "run").rglob("*.png")}
    assert min(min(size) for size in sizes) > 100


# Settings from a file


def test_the_configuration_of_a_run_gives_the_same_run(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    again = ("--config", finished / "config.json", "--out")
    assert lottery(*again, tmp_path / "again")[0] == 0
    assert rows(tmp_path / "again", without_times=True) == rows(finished, without_times=True)
    there, here = (json.loads((path / "config.json").read_text()) for path in (finished, tmp_path / "again"))
    assert there["config"] == here["config"]
    status, error = lottery(*again, tmp_path / "again", "--resume")
    assert (status, "is finished already" in error) == (0, True)
    assert lottery(*again, tmp_path / "other", "--seed", 1)[0] == 0
    assert rows(tmp_path / "other", without_times=True) != rows(finished, without_times=True)
    status, error = lottery(*again, tmp_path / "again", "--resume", "--seed", 1)
    assert status == 2
    assert "--seed 1: the run under --out has 0" in error_line(error)


def test_a_file_with_what_is_no_setting_is_told_in_a_line(tmp_path: Path, lottery: Lottery) -> None:
    (tmp_path / "mine.yaml").write_text("rounds: 1\niteration: 3\n")
    status, error = lottery("--config", tmp_path / "mine.yaml", "--out", tmp_path / "run")
    assert status == 2
    assert "line 2: there is no setting 'iteration', did you mean \"iterations\"?" in error_line(error)
    assert not (tmp_path / "run").exists()
