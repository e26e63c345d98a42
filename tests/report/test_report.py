"""The report of a run: what it says, that it is safe, self-contained and the same every time."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lth_sparse import report
from lth_sparse.storage.record import STEP, Chosen, CurvePoint, LayerCount, Proof, Record, Round

PLOTS = ("accuracy", "loss", "layers", "early-stop", "confusion", "speedup")
LAYERS = {"features.0": 144, "features.3": 4608, "fc1": 8192, "output": 320}
KINDS = {"features.0": "conv", "features.3": "conv", "fc1": "fc", "output": "output"}
RATES = {"conv": 0.2, "fc": 0.4, "output": 0.2}
STATEMENTS = (
    "w == w0 * mask bit for bit",
    "the optimizer starts empty",
    "every pruned position is exactly 0 after training",
    "live weights of both signs have moved",
)


def sample_info(**dataset: Any) -> dict[str, Any]:
    """The content of a config.json; `dataset` replaces entries of its section of that name."""
    return {
        "config": {
            "preset": "quick",
            "model": "small",
            "seed": 0,
            "data": {"dataset": "auto", "image_size": None, "augmentation": "none"},
            "training": {"optimizer": "adam", "learning_rate": 0.002, "milestones": [0.5, 0.75]},
            "pruning": {"rounds": 6, "conv_rate": 0.2, "schedule": "geometric", "control": "random"},
        },
        "command": "python -m lth_sparse.run --preset quick --out runs/a --data-dir '/data/<b>&c'",
        "backend": "dense",
        "dataset": {
            "name": "digits",
            "notice": "CIFAR-10 is not on disk and could not be fetched: this run used digits in its place.",
            "train": 1294,
            "validation": 143,
            "test": 360,
            "image_shape": [1, 8, 8],
            "classes": [str(digit) for digit in range(10)],
        }
        | dataset,
        "network": {"name": "small", "weights": sum(LAYERS.values()), "parameters": 13400},
        "rewind": {
            "iteration": 0,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        "environment": {
            "python": "3.11.7",
            "torch": "2.11.0",
            "device": "cpu",
            "processor": "AMD EPYC",
            "threads": 2,
        },
    }


def sample_record(rounds: int = 7, classes: int = 10, winning: bool = True) -> Record:
    """A plausible run of `rounds` rounds, the dense network included; in a losing one no ticket wins."""
    generator = np.random.default_rng(0)
    record = Record()
    total = sum(LAYERS.values())
    for number in range(rounds):
        live = {name: round(size * (1 - RATES[KINDS[name]]) ** number) for name, size in LAYERS.items()}
        density = sum(live.values()) / total
        # Better down to the fourth round, then worse; a losing run falls from the first round on.
        gain = 0.004 * number - 0.0008 * number**2 if winning else -0.01 * number
        stop = max(50, 450 - 50 * number)
        record.rounds.append(
            Round(
                round=number,
                dataset="digits",
                density=density,
                sparsity=1 - density,
                live_weights=sum(live.values()),
                accuracy_before_prune=0.964 + gain,
                accuracy_after_prune=max(0.1, 0.964 - 0.02 * number**2),
                accuracy_rewound=0.1 + 0.01 * number,
                accuracy_retrained=0.964 + gain,
                accuracy_early_stop=0.962 + gain,
                accuracy_random=None if number == 0 else 0.963 - 0.012 * number,
                accuracy_validation=0.958 + gain,
                early_stop_iteration=stop,
                iterations=600,
                epochs=30,
                train_loss=0.02,
                max_relative_error=0.0 if number == 0 else 2.1e-7,
                step_ms=4.1,
                dense_step_ms=4.2,
                speedup=4.2 / 4.1,
                seconds=3.2,
            )
        )
        for iteration in range(0, 601, 50):
            loss = 2.3 * math.exp(-iteration / 90) + 0.11 + 0.0004 * max(0, iteration - stop)
            for arm in ("ticket", "random") if number else ("ticket",):
                record.curves.append(CurvePoint(number, arm, iteration, loss * 0.9, loss * (1 - 0.02 * number), 0.9))
        record.layers += [LayerCount(number, name, KINDS[name], size, live[name]) for name, size in LAYERS.items()]
        for arm in ("ticket", "random") if number else ():
            record.proofs += [Proof(number, arm, statement, f"{4 + number} layers") for statement in STATEMENTS[:1]]
            record.proofs += [Proof(number, arm, statement, "") for statement in STATEMENTS[1:]]
        matrix = np.diag(np.full(classes, 36)) + (generator.random((classes, classes)) < 0.08)
        record.confusion.append(matrix.astype(int).tolist())
    return record


def written(out: Path, info: dict[str, Any], record: Record) -> str:
    """The page that `report.write` leaves, with plain spaces for its no-break ones."""
    report.write(out, info, record)
    return (out / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")


def test_a_finished_run_has_every_section_and_plot(tmp_path: Path) -> None:
    page = written(tmp_path, sample_info(), sample_record())
    assert page.startswith("<!DOCTYPE html>")
    assert re.findall(r'<section id="([a-z]+)">', page) == [
        "rounds", "plots", "proof", "settings", "environment", "again",
    ]  # fmt: skip
    assert "this run used digits in its place" in page
    assert page.count("<img ") == len(PLOTS)
    assert "tickets/round-05.safetensors" in page
    assert "9f86d081" in page
    assert "learning rate" in page
    assert "AMD EPYC" in page
    assert "all 6 pruned rounds finished" in page


def test_plots_are_png_files_and_the_page_is_small(tmp_path: Path) -> None:
    written(tmp_path, sample_info(), sample_record())
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == sorted(PLOTS)
    for path in (tmp_path / "plots").iterdir():
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert b"matplotlib" not in content[:500]
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_many_rounds_and_a_hundred_classes_stay_small(tmp_path: Path) -> None:
    info = sample_info(name="cifar100", classes=[f"class {number}" for number in range(100)])
    page = written(tmp_path, info, sample_record(rounds=21, classes=100))
    assert page.count("<img ") == len(PLOTS)
    assert len(page) < 2_000_000


def test_headline_of_a_winning_ticket_names_the_data_set_and_both_accuracies(tmp_path: Path) -> None:
    record = sample_record()
    page = written(tmp_path, sample_info(), record)
    left = f"{100 * record.rounds[5].density:.3g}"
    assert (
        f"<h1>A ticket with {left} % of the weights reaches 96.4 % test accuracy on digits; "
        "the dense network reaches 96.4 %.</h1>" in page
    )
    assert "chosen on validation accuracy alone" in page
    assert "random mask with as many weights in each layer, trained alike, reaches 90.3 %" in page
    assert page.count("✓ wins") == 5
    assert "one image is 0.28 percentage points" in page


def test_headline_without_a_winning_ticket_says_so(tmp_path: Path) -> None:
    page = written(tmp_path, sample_info(), sample_record(winning=False))
    assert (
        "<h1>No ticket on digits validates as well as the dense network: the best one, with 67.6 % of the "
        "weights, reaches 95.4 % test accuracy; the dense network reaches 96.4 %.</h1>" in page
    )
    assert "✓ wins" not in page


def test_a_ticket_that_wins_on_validation_and_loses_on_test_is_not_sold_as_a_win(tmp_path: Path) -> None:
    record = sample_record()
    record.rounds[0] = Round(**{**vars(record.rounds[0]), "accuracy_retrained": 0.99})
    page = written(tmp_path, sample_info(), record)
    assert "It matched the dense network on the validation set, not on the test set." in page


def test_only_the_dense_network_so_far(tmp_path: Path) -> None:
    page = written(tmp_path, sample_info(), sample_record(rounds=1))
    assert (
        "<h1>The dense network reaches 96.4 % test accuracy on digits; no pruned round has finished yet.</h1>" in page
    )
    assert page.count("Left out: no pruned round has finished yet.") == 3
    assert "still running: 0 of 6 pruned rounds finished" in page
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"loss", "layers", "confusion"}


def test_an_empty_record_of_a_run_that_knows_nothing_yet(tmp_path: Path) -> None:
    page = written(tmp_path, {}, Record())
    assert "<h1>No round finished yet on an unnamed data set.</h1>" in page
    assert "<img " not in page
    assert "The rewind weights have not been saved yet." in page
    assert not (tmp_path / "plots").exists()


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", 'a"b', "$x$", "猫", *"456789"]
    info = sample_info(name="<i>mine</i>", notice="<b>not</b> & CIFAR-10", classes=names)
    info["network"]["name"] = "<u>net</u>"
    record = sample_record()
    record.confusion[5][0][1] = 9
    record.proofs.append(Proof(1, "<em>", "<q>said</q>", "<s>so</s>"))
    page = written(tmp_path, info, record)
    for tag in ("<script", "<i>", "<u>", "<b>not", "<em>", "<q>", "<s>"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; taken for a&quot;b (9×)" in page  # noqa: RUF001 (times sign)
    assert "&lt;b&gt;not&lt;/b&gt; &amp; CIFAR-10" in page
    assert "--data-dir &#x27;/data/&lt;b&gt;&amp;c&#x27;" in page


def test_what_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    record = sample_record(rounds=3)
    nothing = dict.fromkeys(
        (
            "accuracy_after_prune",
            "accuracy_early_stop",
            "max_relative_error",
            "step_ms",
            "dense_step_ms",
            "speedup",
        ),
        math.nan,
    )
    record.rounds = [Round(**{**vars(row), **nothing, "accuracy_random": None}) for row in record.rounds]
    record.confusion = []
    page = written(tmp_path, sample_info(), record)
    assert "nan" not in re.sub(r'src="[^"]*"', "", page).lower()
    assert "None" not in re.sub(r'src="[^"]*"', "", page)
    row = re.findall(r"<tr[^>]*><th scope=\"row\">.*</tr>", page)[1]
    assert row.count("<td>–</td>") == 6  # noqa: RUF001 (en dash)
    assert "Left out: no training step was timed." in page
    assert "Left out: no confusion matrix has been recorded yet." in page


def test_a_diverged_round_is_drawn_with_gaps(tmp_path: Path) -> None:
    record = sample_record(rounds=2)
    record.curves = [
        CurvePoint(point.round, point.arm, point.iteration, math.nan, math.inf if point.round else 2.0, 0.1)
        for point in record.curves
    ]
    record.layers = [
        LayerCount(count.round, count.layer, count.kind, count.weights, 0 if count.round else count.weights)
        for count in record.layers
    ]
    assert written(tmp_path, sample_info(), record).count("<img ") == len(PLOTS)


def test_proofs_are_collapsed_to_one_line_a_statement(tmp_path: Path) -> None:
    record = sample_record()
    record.proofs.append(Proof(0, "ticket", "the optimizer starts empty", ""))
    page = written(tmp_path, sample_info(), record)
    assert "<strong>w == w0 * mask bit for bit</strong> — checked in rounds 1..6, ticket, random mask." in page
    arms = "rounds 0..6, ticket; rounds 1..6, random mask"
    assert f"<strong>the optimizer starts empty</strong> — checked in {arms}." in page


def with_choices(record: Record) -> Record:
    """`record` as auto leaves it: masked dense in round 0, a layer each way in round 1."""
    dense, cpp = {"dense": 2.0, "cpp": 3.25}, {"dense": 2.0, "cpp": 0.5}
    record.chosen = [
        Chosen(0, "", 1.0, STEP, "dense", {}, "nothing is pruned"),
        Chosen(1, "features.0", 0.8, "forward", "cpp", cpp, "measured at a batch of 64"),
        Chosen(1, "features.0", 0.8, "grad_weight", "dense", dense, "triton failed: ValueError: <none>"),
        Chosen(1, "fc1", 0.6, "grad_input", "cpp", cpp, ""),
        Chosen(1, "", 0.7, STEP, "auto", {"auto": 1.0, "dense": 4.0}, ""),
    ]
    return record


def test_what_auto_chose_is_told_for_each_round_and_layer(tmp_path: Path) -> None:
    page = written(tmp_path, sample_info(), with_choices(sample_record()))
    assert "<p>Round 0, 100 % of the weights left: masked dense PyTorch trains it: nothing is pruned.</p>" in page
    summary = "Round 1, 70 % of the weights left: sparse layers train it: a step takes auto 1.00 (dense 4.00) ms."
    assert f"<details><summary>{summary}</summary>" in page
    cells = "<td>80 %</td><td>cpp 0.50 (dense 2.00)</td><td>–</td><td>dense 2.00 (cpp 3.25)</td>"  # noqa: RUF001
    assert f'<tr><th scope="row">features.0</th>{cells}</tr>' in page
    assert "<li>features.0, forward: measured at a batch of 64</li>" in page
    assert "<li>features.0, grad_weight: triton failed: ValueError: &lt;none&gt;</li>" in page


def test_choices_survive_json() -> None:
    record = with_choices(sample_record())
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    older = {name: value for name, value in record.to_json().items() if name != "chosen"}
    assert Record.from_json(older).chosen == []


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    page = written(tmp_path, sample_info(), sample_record())
    assert not re.search(r"https?://|<script|@import|<link(?! rel=\"icon\" href=\"data:,\")", page)
    for reference in re.findall(r"(?:src|href|srcset|action)=\"([^\"]*)\"", page) + re.findall(r"url\(([^)]*)", page):
        assert reference.startswith("data:")


class Nesting(HTMLParser):
    """Follows opening and closing tags; `faults` lists those that do not match."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img" and not dict(attrs).get("alt"):
            self.faults.append("img without alt")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


@pytest.mark.parametrize("rounds", [0, 1, 7])
def test_tags_are_nested_and_images_have_alternatives(tmp_path: Path, rounds: int) -> None:
    nesting = Nesting()
    nesting.feed(written(tmp_path, sample_info(), with_choices(sample_record(rounds))))
    assert nesting.faults == []
    assert nesting.open == []


def test_two_writes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        report.write(tmp_path / name, sample_info(), sample_record())
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
