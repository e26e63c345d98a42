"""`python -m lth_sparse.run --replicates N`: the same lottery on several seeds, and what they say together."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lth_sparse.report.replicates import headline, times_of_training
from lth_sparse.storage.summary import SummaryRow
from tests.conftest import Killed, error_line, killed_when, rows, table

Lottery = Callable[..., tuple[int, str]]
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 2, "--iterations", 30, "--evaluate-every", 30,
    "--backend", "dense", "--controls", "random,reinit", "--seed", 4,
)  # fmt: skip
ARMS = {"ticket": "accuracy_retrained", "random": "accuracy_random", "reinit": "accuracy_reinit"}


def summary(out: Path) -> list[dict[str, str]]:
    return table(out / "summary.csv")


def without_speed(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "speedup"} for row in found]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lth_sparse import run

    out = tmp_path_factory.mktemp("replicates") / "three"
    assert run.main([*map(str, SHORT), "--replicates", "3", "--out", str(out)]) == 0
    return out


def test_each_seed_is_a_run_of_its_own(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    assert sorted(path.name for path in finished.glob("seed-*")) == ["seed-4", "seed-5", "seed-6"]
    assert lottery(*SHORT[:-1], 5, "--out", tmp_path / "alone")[0] == 0
    assert rows(tmp_path / "alone", without_times=True) == rows(finished / "seed-5", without_times=True)
    for name in ("report.html", "tickets/round-02.safetensors"):
        assert (finished / "seed-6" / name).is_file()


def test_the_time_of_all_trainings_stands_beside_that_of_dense_steps(finished: Path) -> None:
    seeds = [rows(finished / f"seed-{seed}") for seed in (4, 5, 6)]
    trainings = [(row, 1 if row["round"] == "0" else 3) for seed in seeds for row in seed]
    info = json.loads((finished / "replicates.json").read_text())
    assert info["training"]["trainings"] == 3 * (1 + 2 * 3)
    seconds = sum(count * float(row["seconds"]) for row, count in trainings)
    dense = sum(count * float(row["seconds"]) * float(row["speedup"]) for row, count in trainings)
    assert info["training"]["seconds"] == pytest.approx(seconds)
    assert info["training"]["dense_seconds"] == pytest.approx(dense)
    said = times_of_training(info)
    assert said.startswith("The steps of all 21 trainings took ")
    assert f"{dense / seconds:.2f} times as long" in said
    assert said in (finished / "report.html").read_text().replace("&#x27;", "'")
    assert times_of_training({}) == ""


def half(values: np.ndarray) -> float:
    """Of the interval over three seeds; those that agree differ by the rounding to one of the 360 test images."""
    return float(4.30265 * max(values.std(ddof=1), 1 / 360 / 12**0.5) / 3**0.5)


def test_the_summary_has_a_row_for_each_arm_of_each_round(finished: Path) -> None:
    seeds = [rows(finished / f"seed-{seed}") for seed in (4, 5, 6)]
    found = summary(finished)
    expected = [("0", "ticket")] + [(str(round), arm) for round in (1, 2) for arm in ARMS]
    assert [(row["round"], row["arm"]) for row in found] == expected
    for row in found:
        of_round = [seed[int(row["round"])] for seed in seeds]
        values = np.array([float(each[ARMS[row["arm"]]]) for each in of_round])
        assert row["seeds"] == "3"
        assert float(row["accuracy"]) == pytest.approx(values.mean())
        assert float(row["accuracy_half"]) == pytest.approx(half(values), rel=1e-4)
        if row["round"] == "0":
            assert (row["difference"], row["verdict"]) == ("", "")
            continue
        against = [seed[0] for seed in seeds] if row["arm"] == "ticket" else of_round
        column = ARMS[row["arm"]]
        tickets = np.array([float(each["accuracy_retrained"]) for each in of_round])
        differences = tickets - np.array([float(each[column]) for each in against])
        assert float(row["difference"]) == pytest.approx(differences.mean())
        assert float(row["difference_half"]) == pytest.approx(half(differences), rel=1e-4)
        assert row["verdict"]


def test_the_report_says_it_and_leads_to_each_seed(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for seed in (4, 5, 6):
        assert f'<a href="seed-{seed}/report.html">seed {seed}</a>' in page
    assert "--replicates 3" in page
    assert page.count("<tr") == 2 + 3
    for words in ("random mask", "new initial weights", "±", "Student"):
        assert words in page
    assert (finished / "plots" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|seed-)', page)


def test_the_command_ends_with_what_the_seeds_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lottery: Lottery
) -> None:
    from lth_sparse import run

    assert run.main([*map(str, SHORT), "--replicates", "2", "--rounds", "1", "--out", str(tmp_path / "run")]) == 0
    said, trained, files = capsys.readouterr().out.splitlines()
    assert re.match(r"(Over 2 seeds, |2 seeds are too few)", said)
    for part in ("the dense network reaches", "random mask ", "new initial weights "):
        assert part in said
    assert trained.startswith("The steps of all 8 trainings took ")
    assert files == f"{tmp_path / 'run' / 'summary.csv'}, {tmp_path / 'run' / 'report.html'}"


def test_killed_in_the_second_seed_it_goes_on_to_the_same_end(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    out = tmp_path / "run"
    second = killed_when(lambda store, written: store.path.name == "seed-5" and (store.path / "rounds.csv").exists())
    with second, pytest.raises(Killed):
        lottery(*SHORT, "--replicates", 3, "--out", out)
    assert {row["seeds"] for row in summary(out)} == {"1"}
    status, error = lottery(*SHORT, "--replicates", 3, "--out", out, "--resume")
    assert status == 0, error
    assert without_speed(summary(out)) == without_speed(summary(finished))
    first = (out / "seed-4" / "record.json").read_bytes()
    status, error = lottery(*SHORT, "--replicates", 4, "--out", out, "--resume")
    assert status == 0, error
    assert (out / "seed-4" / "record.json").read_bytes() == first
    assert {row["seeds"] for row in summary(out)} == {"4"}
    assert error.count("is finished already") == 3


def test_with_auto_later_seeds_take_over_what_the_first_chose(tmp_path: Path, lottery: Lottery) -> None:
    given = [*SHORT[:-6], "--backend", "auto", "--seed", 0]
    status, error = lottery(*given, "--rounds", 0, "--replicates", 2, "--out", tmp_path / "run")
    assert status == 0, error
    first, second = (json.loads((tmp_path / "run" / f"seed-{seed}" / "choices.json").read_text()) for seed in (0, 1))
    assert first == second


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_seed_that_is_added_is_of_the_same_lottery_however_short_the_line(
    finished: Path, tmp_path: Path, lottery: Lottery
) -> None:
    out = copied(finished, tmp_path)
    status, error = lottery("--replicates", 4, "--resume", "--out", out)
    assert status == 0, error
    configs = [json.loads((out / f"seed-{seed}" / "config.json").read_text())["config"] for seed in (4, 7)]
    assert configs[0] | {"seed": 7} == configs[1]
    assert {row["seeds"] for row in summary(out)} == {"4"}
    assert json.loads((out / "replicates.json").read_text())["seeds"] == [4, 5, 6, 7]


def test_killed_in_the_first_seed_a_short_line_goes_on_with_it(tmp_path: Path, lottery: Lottery) -> None:
    out = tmp_path / "run"
    with killed_when(), pytest.raises(Killed):
        lottery(*SHORT, "--replicates", 2, "--out", out)
    status, error = lottery("--resume", "--out", out)
    assert (status, "holds replicates.json" in error.splitlines()[-1]) == (2, True)
    assert lottery("--replicates", 2, "--resume", "--out", out)[0] == 0
    assert sorted(path.name for path in out.glob("seed-*")) == ["seed-4", "seed-5"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--replicates", 2), "--replicates 2: expected a whole number from 3 to 1000, for there are 3 under"),
        (("--replicates", 3, "--seed", 0), "--seed 0: the run under --out has 4"),
        (("--replicates", 3, "--batch-size", 7), "--batch-size 7: the run under --out has 64"),
    ],
)
def test_what_is_there_is_neither_dropped_nor_mixed_with_another_lottery(
    finished: Path, tmp_path: Path, lottery: Lottery, given: tuple[object, ...], message: str
) -> None:
    out = copied(finished, tmp_path)
    before = (out / "summary.csv").read_bytes()
    status, error = lottery(*given, "--resume", "--out", out)
    assert status == 2
    assert message in error_line(error)
    assert (out / "summary.csv").read_bytes() == before
    assert sorted(path.name for path in out.glob("seed-*")) == ["seed-4", "seed-5", "seed-6"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"replicates": 0, "config": {}}', '{"replicates": 2}'])
def test_a_damaged_account_of_the_seeds_is_named(
    finished: Path, tmp_path: Path, lottery: Lottery, content: str
) -> None:
    out = copied(finished, tmp_path)
    (out / "replicates.json").write_text(content)
    status, error = lottery("--replicates", 3, "--resume", "--out", out)
    assert (status, "replicates.json is damaged" in error_line(error)) == (2, True)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("matching dense", "worse than dense"), "Over 3 seeds, tickets match down to 50 % of the weights: "),
        (("worse than dense", "better than dense"), "Over 3 seeds, not every denser ticket matches, but this one does"),
        (("too few seeds to say", "worse than dense"), "3 seeds are too few to say whether tickets match"),
        (("worse than dense", "worse than dense"), "Over 3 seeds, no ticket matches"),
    ],
)
def test_the_headline_says_no_more_than_the_verdicts(verdicts: tuple[str, str], said: str) -> None:
    made = [SummaryRow(0, "ticket", 3, 1.0, 0.9, 0.01, None, None, "", None)]
    made += [
        SummaryRow(round, "ticket", 3, 0.5**round, 0.9, 0.01, 0.0, 0.01, verdict, None)
        for round, verdict in enumerate(verdicts, start=1)
    ]
    assert headline(made).replace("\N{NO-BREAK SPACE}", " ").startswith(said)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--replicates", 0), "--replicates 0: expected a whole number from 1 to 1000"),
        (("--replicates", -3), "--replicates -3: expected a whole number"),
        (("--replicates", 2, "--controls", "randm"), "--controls randm: expected some of"),
        (("--replicates", 2, "--tensorboard", "board"), "--tensorboard: what it is told does not say of which seed"),
        (("--replicates", "two"), "argument --replicates: invalid int value: 'two'"),
    ],
)
def test_what_cannot_be_asked_for_is_said_and_nothing_is_written(
    tmp_path: Path, lottery: Lottery, given: tuple[object, ...], message: str
) -> None:
    status, error = lottery(*SHORT, *given, "--out", tmp_path / "run")
    assert status == 2
    assert message in error_line(error)
    assert not (tmp_path / "run").exists()


def test_it_overwrites_nothing(finished: Path, tmp_path: Path, lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--replicates", 3, "--out", finished)
    assert (status, "holds replicates.json" in error_line(error), "add --resume" in error) == (2, True, True)
    status, error = lottery(*SHORT, "--replicates", 3, "--out", finished / "seed-4")
    assert (status, "holds a run of one seed" in error_line(error)) == (2, True)
    status, error = lottery(*SHORT, "--replicates", 3, "--resume", "--controls", "sign", "--out", finished)
    assert (status, "the run under --out has" in error) == (2, True)
