"""`python -m lth_sparse.transfer`: tickets on other data, other networks, by other optimizers."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse import models, run, transfer
from tests.conftest import called_until_done, error_line, rows, table
from tests.experiments.conftest import Called

Transfer = Called
FOUND = (
    "--dataset", "digits", "--model", "conv2", "--rounds", "2", "--iterations", "20", "--evaluate-every", "10",
    "--batch-size", "30", "--optimizer", "adam", "--learning-rate", "0.002", "--controls", "none", "--sparsity", "0.8",
    "--backend", "dense",
)  # fmt: skip
SHORT = ("--backend", "dense", "--iterations", 10, "--evaluate-every", 10)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of conv2 on digits."""
    out = tmp_path_factory.mktemp("found") / "run"
    assert run.main([*FOUND, "--out", str(out)]) == 0
    return out / "tickets" / "round-02.safetensors"


@pytest.fixture
def transferred(called: Called) -> Transfer:
    """Calls the command line."""
    return partial(called, transfer.main)


def test_to_other_images_it_starts_from_its_mask_and_its_weights(
    ticket: Path, image_folder: Path, tmp_path: Path, transferred: Transfer
) -> None:
    """digits are 8x8 of one channel and ten classes; the folder's images have three channels and two classes."""
    out = tmp_path / "out"
    status, said, error = transferred(
        "--ticket", ticket, "--dataset", "folder", "--data-dir", image_folder, "--image-size", 8, *SHORT, "--out", out
    )
    assert status == 0, error
    assert re.match(
        r"conv2 on digits, .* left, to conv2 on folder, over 1 seed: [\d.]+ % with .*% of the weights", said
    )
    found, before = lth.read_ticket(out / "seed-0" / "tickets" / "round-01.safetensors"), lth.read_ticket(ticket)
    for name in ("conv1b", "fc1", "fc2"):
        assert torch.equal(found.masks[name], before.masks[name])
        assert torch.equal(found.weights[f"{name}.weight"], before.weights[f"{name}.weight"])
        assert torch.equal(found.weights[f"{name}.bias"], before.weights[f"{name}.bias"])
    assert torch.equal(found.masks["conv1a"], before.masks["conv1a"].expand(-1, 3, -1, -1))
    assert found.masks["output"].all()
    assert found.masks["output"].shape[0] == 2
    dense, pruned = rows(out / "seed-0")
    assert float(dense["density"]) == 1
    assert 0.2 < float(pruned["density"]) < 0.3
    assert pruned["accuracy_random"] != ""
    assert pruned["accuracy_reinit"] != ""
    info = json.loads((out / "seed-0" / "config.json").read_text())
    assert info["ticket"]["dataset"] == "digits"
    assert info["ticket"]["sha256"] == hashlib.sha256(ticket.read_bytes()).hexdigest()
    assert ["output", "", "whole: 2 classes, the ticket's are 10"] in info["ticket"]["layers"]
    proofs = json.loads((out / "seed-0" / "record.json").read_text())["record"]["proofs"]
    assert {(proof["round"], proof["arm"]) for proof in proofs} == {
        (0, "ticket"), (1, "ticket"), (1, "random"), (1, "reinit"),
    }  # fmt: skip


def test_what_is_not_given_is_as_the_ticket_was_trained(ticket: Path, tmp_path: Path, transferred: Transfer) -> None:
    status, _, error = transferred("--ticket", ticket, "--backend", "dense", "--out", tmp_path / "out")
    assert status == 0, error
    config = json.loads((tmp_path / "out" / "seed-0" / "config.json").read_text())["config"]
    assert config["model"] == "conv2"
    assert config["data"]["dataset"] == "digits"
    training = config["training"]
    assert (training["optimizer"], training["learning_rate"], training["iterations"]) == ("adam", 0.002, 20)
    assert training["batch_size"] == 30
    status, _, error = transferred("--ticket", ticket, *SHORT, "--preset", "seed", "--out", tmp_path / "other")
    assert status == 0, error
    config = json.loads((tmp_path / "other" / "seed-0" / "config.json").read_text())["config"]
    assert (config["model"], config["training"]["optimizer"], config["pruning"]["rounds"]) == ("conv2", "sgd", 1)


def test_to_a_deeper_network_by_another_optimizer(ticket: Path, tmp_path: Path, transferred: Transfer) -> None:
    out = tmp_path / "out"
    given = ("--ticket", ticket, "--model", "conv4", "--optimizer", "sgd", "--learning-rate", 0.01, *SHORT)
    status, said, error = transferred(*given, "--controls", "random", "--out", out)
    assert status == 0, error
    assert "to conv4 on digits" in said
    layers = {
        name: how for name, _, how in json.loads((out / "seed-0" / "config.json").read_text())["ticket"]["layers"]
    }
    assert layers["conv2a"] == "whole: the ticket has no such layer"
    assert layers["conv1b"] == "as it is"
    assert layers["fc1"] == "whole: 512 flattened inputs, the ticket's are 1024"
    assert rows(out / "seed-0")[1]["accuracy_reinit"] == ""


def test_several_tickets_and_data_sets_make_a_matrix(
    ticket: Path, image_folder: Path, tmp_path: Path, transferred: Transfer
) -> None:
    out = tmp_path / "out"
    sparser = ticket.with_name("round-01.safetensors")
    given = ("--ticket", ticket, sparser, "--dataset", "digits,folder", "--data-dir", image_folder, "--image-size", 8)
    status, said, error = transferred(*given, *SHORT, "--replicates", 2, "--out", out)
    assert status == 0, error
    assert len(said.splitlines()) == 5
    found = table(out / "transfer.csv")
    pairs = list(dict.fromkeys((row["source"], row["target"]) for row in found))
    assert len(pairs) == 4
    assert [row["arm"] for row in found[:4]] == ["dense", "ticket", "random", "reinit"]
    assert {row["seeds"] for row in found} == {"2"}
    folders = sorted(path.name for path in out.iterdir() if path.is_dir() and path.name != "plots")
    assert len(folders) == 4
    page = (out / "report.html").read_text()
    for folder in folders:
        assert f'href="{folder}/report.html"' in page
        assert (out / folder / "report.html").is_file()
        by_seed = [rows(out / folder / f"seed-{seed}")[1] for seed in (0, 1)]
        mean = sum(float(row["accuracy_retrained"]) for row in by_seed) / 2
        assert any(float(row["accuracy"]) == pytest.approx(mean) for row in found if row["arm"] == "ticket")
    assert {path.stem for path in (out / "plots").iterdir()} == {"less-dense", "less-random", "less-reinit"}


def test_killed_it_goes_on_to_the_same_end(ticket: Path, tmp_path: Path, transferred: Transfer) -> None:
    given = ("--ticket", ticket, *SHORT, "--replicates", 2)
    assert transferred(*given, "--out", tmp_path / "whole")[0] == 0
    out = tmp_path / "killed"
    (status, _, error), kills = called_until_done(lambda: transferred(*given, "--out", out, "--resume"))
    assert status == 0, error
    assert kills == 2 * 4  # Of each seed: the dense network, the ticket, two controls.
    for seed in (0, 1):
        assert rows(out / f"seed-{seed}", without_times=True) == rows(tmp_path / "whole" / f"seed-{seed}", True)


def test_a_run_and_a_transfer_do_not_go_on_with_each_other(
    ticket: Path, tmp_path: Path, transferred: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transferred("--ticket", ticket, *SHORT, "--out", tmp_path / "out")[0] == 0
    assert run.main(["--resume", "--out", str(tmp_path / "out" / "seed-0")]) == 2
    other = ticket.with_name("round-01.safetensors")
    status, _, error = transferred("--ticket", other, *SHORT, "--out", tmp_path / "out", "--resume")
    assert status == 2
    assert "the ticket (its SHA-256) was" in error_line(error.splitlines()[-1])


def test_a_ticket_of_a_network_of_ones_own_needs_a_model(tmp_path: Path, transferred: Transfer) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    lth.save_ticket(tmp_path / "own.safetensors", model, {"1": torch.rand(10, 64) < 0.5})
    given = ("--ticket", tmp_path / "own.safetensors", "--dataset", "digits", *SHORT)
    status, _, error = transferred(*given, "--out", tmp_path / "out")
    assert (status, "does not say which network it is of: name one with --model" in error_line(error)) == (2, True)


def test_a_config_says_what_the_command_line_might(ticket: Path, tmp_path: Path, transferred: Transfer) -> None:
    """Over how the ticket was trained, the ticket's network and its data."""
    for name, content, expected in (
        ("other", {"model": "conv4", "controls": ["shuffle"], "epochs": 1, "batch_size": 600},
         ("conv4", ["shuffle"], 1)),
        ("preset", {"preset": "paper/lenet", "model": "conv2", "iterations": 5, "dataset": "digits"},
         ("conv2", ["random", "reinit"], None)),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        given = ("--ticket", ticket, "--config", tmp_path / f"{name}.json", "--backend", "dense")
        status, _, error = transferred(*given, "--out", tmp_path / name)
        assert status == 0, error
        config = json.loads((tmp_path / name / "seed-0" / "config.json").read_text())["config"]
        assert (config["model"], config["pruning"]["controls"], config["training"]["epochs"]) == expected
    assert config["training"]["learning_rate"] == 1.2e-3


def test_a_short_line_goes_on_and_nothing_is_overwritten(ticket: Path, tmp_path: Path, transferred: Transfer) -> None:
    out = tmp_path / "out"
    given = ("--ticket", ticket, *SHORT, "--controls", "none", "--replicates", 2)
    assert transferred(*given, "--out", out)[0] == 0
    before = (out / "summary.csv").read_bytes()
    status, _, error = transferred("--ticket", ticket, "--resume", "--out", out)
    assert status == 0, error
    assert (out / "summary.csv").read_bytes() == before
    status, _, error = transferred("--ticket", ticket, "--replicates", 3, "--resume", "--out", out)
    assert status == 0, error
    configs = [json.loads((out / f"seed-{seed}" / "config.json").read_text())["config"] for seed in (0, 2)]
    assert configs[0] | {"seed": 2} == configs[1]
    status, _, error = transferred(*given, "--out", out)
    assert (status, "holds transfer.csv; add --resume" in error_line(error)) == (2, True)


def test_a_file_does_not_decide_which_code_runs(tmp_path: Path, transferred: Transfer) -> None:
    (tmp_path / "planted.py").write_text("open('ran', 'w').write('')\ndef f(*a, **k):\n    pass\n")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    masks = {"1": torch.rand(10, 64) < 0.5}
    named = models.Network("planted:f", (1, 8, 8), 10)
    for name, network, metadata, message in (
        ("a", named, {"dataset": "digits"}, "planted"),
        ("b", None, {"dataset": "planted:f"}, "is of the data set 'planted:f', which is none of ours: name one with"),
    ):
        path = tmp_path / f"{name}.safetensors"
        lth.save_ticket(path, model, masks, network=network, metadata=metadata)
        given = ("--ticket", path, *(() if network else ("--model", "lenet-300-100")))
        status, _, error = transferred(*given, *SHORT, "--out", tmp_path / "out")
        assert status == 2
        assert message in error_line(error)
    assert not (tmp_path / "ran").exists()
    assert not Path("ran").exists()


@pytest.mark.parametrize("config", [{"training": {"epochs": "many"}}, {"nothing": 1}, [1], {"training": {"epochs": 0}}])
def test_settings_that_a_stranger_has_written_are_left_or_refused(
    ticket: Path, tmp_path: Path, transferred: Transfer, config: object
) -> None:
    before = lth.read_ticket(ticket)
    model = lth.load_ticket(ticket)
    changed = tmp_path / "changed.safetensors"
    lth.save_ticket(
        changed, model, before.masks, network=before.network, metadata={"dataset": "digits", "config": config}
    )
    status, _, error = transferred("--ticket", changed, *SHORT, "--out", tmp_path / "out")
    assert status in (0, 2), error
    assert "unexpected" not in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--ticket", "{folder}/none.safetensors"), "none.safetensors"),
        (("--ticket", "{folder}/text.safetensors"), "text.safetensors"),
        (("--ticket", "{ticket}", "--model", "resnet20"), "has no layer for any of the model's but its head"),
        (("--ticket", "{ticket}", "--rounds", 3), "unrecognized arguments: --rounds 3"),
        (("--ticket", "{ticket}", "--dataset", "digitz"), 'did you mean "digits"'),
        (("--ticket", "{ticket}", "--controls", "randm"), '--controls randm: expected some of'),
        (("--ticket", "{ticket}", "--controls", "sign"), "--controls sign: it keeps the signs of a lottery's own"),
        (("--ticket", "{folder}"), "Is a directory; give the .safetensors file of a ticket"),
        (("--ticket", "{ticket}", "--resume"), "give --out DIR too"),
        ((), "the following arguments are required: --ticket"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_written(
    ticket: Path, tmp_path: Path, transferred: Transfer, given: tuple[object, ...], message: str
) -> None:
    (tmp_path / "text.safetensors").write_text("no ticket")
    filled = [str(each).format(ticket=ticket, folder=tmp_path) for each in given]
    out = () if "--resume" in filled else ("--out", tmp_path / "out")
    status, _, error = transferred(*filled, *(() if "--rounds" in filled else SHORT), *out)
    assert status == 2, error
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "seed-0" / "rounds.csv").exists()
