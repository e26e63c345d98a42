"""The check that a refactoring changed nothing: what it calls different, what it takes for a time, what it runs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from PIL import Image

from tests.unchanged import checkouts
from tests.unchanged.__main__ import main
from tests.unchanged.comparison import Verdict, compare
from tests.unchanged.errors import CheckError
from tests.unchanged.interpreter import ROOT, Interpreter
from tests.unchanged.runs import Code
from tests.unchanged.table import differences, table

RUN = "--preset quick --dataset digits --model lenet-300-100 --iterations 12 --evaluate-every 6 --rounds 1"
ARGUMENTS = [*RUN.split(), "--backend", "dense", "--device", "cpu", "--out", "run"]


@pytest.fixture(scope="module")
def free() -> Iterator[SimpleQueue[Interpreter]]:
    interpreter = Interpreter()
    queue: SimpleQueue[Interpreter] = SimpleQueue()
    queue.put(interpreter)
    yield queue
    interpreter.close()


@pytest.fixture(scope="module")
def two_runs(free: SimpleQueue[Interpreter], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same command, run twice with the code of this checkout."""
    code = Code("this", ROOT, free)
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for folder in folders:
        code.run(folder, ARGUMENTS)
        code.read_tickets(folder)
        assert (folder / "said" / "status").read_text() == "0\n0\n", (folder / "said" / "stderr").read_text()
    return folders


@pytest.fixture
def base(two_runs: tuple[Path, Path]) -> Path:
    return two_runs[0]


@pytest.fixture
def new(two_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """The second run, to be changed."""
    return Path(shutil.copytree(two_runs[1], tmp_path / "new"))


def different(verdicts: dict[str, Verdict]) -> list[str]:
    return [name for name, verdict in verdicts.items() if verdict.difference]


def test_two_runs_of_the_same_code_differ_in_times_alone(base: Path, new: Path) -> None:
    verdicts = compare(base, new)
    assert different(verdicts) == []
    # What is masked does differ, and nothing else is masked: a mask that is not needed would hide something.
    assert {name for name, verdict in verdicts.items() if verdict.times} == {
        "said/stderr",
        "run/plots/speedup.png",
        "run/record.json",
        "run/report.html",
        "run/rounds.csv",
    }
    assert "run/plots/accuracy.png" in verdicts
    assert "run/tickets/round-01.safetensors" in verdicts
    assert "said/tickets" in verdicts


def test_without_masks_times_are_differences(base: Path, new: Path) -> None:
    assert "run/rounds.csv" in different(compare(base, new, times=False))


def edit(name: str, pattern: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """Changes the last group of the first match of `pattern` in the file `name`."""

    def made(folder: Path) -> None:
        text = (folder / name).read_text()
        found = re.search(pattern, text)
        assert found is not None
        begin, end = found.span(1)
        (folder / name).write_text(text[:begin] + change(found[1]) + text[end:])

    return made


def flip_a_byte(name: str, at: int) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return made


def another_size(folder: Path) -> None:
    Image.new("RGB", (10, 10)).save(folder / "run" / "plots" / "speedup.png")


def another_record(folder: Path) -> None:
    """One whose SHA-256 is right: only the value tells."""
    path = folder / "run" / "record.json"
    record = json.loads(path.read_text())["record"]
    record["curves"][0]["validation_loss"] += 1e-12
    content = json.dumps(record)
    path.write_text(f'{{"sha256": "{hashlib.sha256(content.encode()).hexdigest()}",\n"record": {content}}}\n')


def last_digit(text: str) -> str:
    return text[:-1] + str((int(text[-1]) + 1) % 10)


NUMBER = r"(\d+\.\d+)"
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("run/rounds.csv", edit("run/rounds.csv", rf"\n1,digits,(?:[^,]*,){{6}}{NUMBER}", last_digit)),
        # Not its last digit, without which it may be the same float.
        ("run/rounds.csv", edit("run/rounds.csv", rf"\n1,.*,{NUMBER},[^,]*,,,,\n", lambda text: f"9{text}")),
        ("run/rounds.csv", edit("run/rounds.csv", rf"\n1,.*,{NUMBER},,,,\n", lambda _: "nan")),
        ("run/rounds.csv", edit("run/rounds.csv", r"\n1,.*(,)[^,]*\n", lambda _: ", ")),
        ("run/record.json", edit("run/record.json", rf'"accuracy_retrained": {NUMBER}', last_digit)),
        ("run/record.json", edit("run/record.json", rf'"step_ms": {NUMBER}', last_digit)),
        ("run/record.json", edit("run/record.json", r'"sha256": "([0-9a-f]+)"', lambda text: text[::-1])),
        ("run/record.json", another_record),
        ("run/curves.csv", edit("run/curves.csv", rf",{NUMBER}\n", last_digit)),
        ("run/config.json", edit("run/config.json", r'"seed": (0)', last_digit)),
        ("run/config.json", edit("run/config.json", r'"commit": "(.*)"', lambda _: "unknown")),
        ("run/report.html", edit("run/report.html", rf"<strong>{NUMBER}</strong>", last_digit)),
        ("run/report.html", edit("run/report.html", rf"<td>{NUMBER}</td><td>[^<]*</td><td>[\d.]+{TIMES}", last_digit)),
        ("run/report.html", edit("run/report.html", rf"Speedup</dt><dd><b>{NUMBER}", lambda _: "1234.56")),
        ("run/report.html", edit("run/report.html", r"base64,.{500}(.)", lambda text: "A" if text != "A" else "B")),
        ("run/plots/accuracy.png", flip_a_byte("run/plots/accuracy.png", -30)),
        ("run/tickets/round-01.safetensors", flip_a_byte("run/tickets/round-01.safetensors", -1)),
        ("said/stderr", edit("said/stderr", r"test accuracy (\d+)", last_digit)),
        ("said/stdout", edit("said/stdout", r"(report)", str.upper)),
        ("said/status", edit("said/status", r"(0)", lambda _: "2: a sentence")),
    ],
)
def test_anything_else_is_a_difference(base: Path, new: Path, name: str, change: Callable[[Path], None]) -> None:
    change(new)
    assert name in different(compare(base, new))


def test_a_speedup_plot_of_another_size_is_a_difference(base: Path, new: Path) -> None:
    another_size(new)
    assert "run/plots/speedup.png" in different(compare(base, new))


def test_a_missing_file_and_an_extra_one_are_differences(base: Path, new: Path) -> None:
    (new / "run" / "layers.csv").unlink()
    (new / "run" / "state").mkdir()
    verdicts = compare(base, new)
    assert verdicts["run/layers.csv"].difference == "it is missing in the new files"
    assert verdicts["run/state"].difference == "it is missing in the base's files"


def test_what_is_said_of_a_difference(tmp_path: Path) -> None:
    for name, accuracy, byte in (("base", "0.91", 1), ("new", "0.92", 2)):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "curves.csv").write_text(f"round,accuracy\n0,0.5\n1,{accuracy}\n")
        (tmp_path / name / "run" / "ticket").write_bytes(bytes([0, 255, byte]))
    found = {"new": compare(tmp_path / "base", tmp_path / "new"), "again": {"run/curves.csv": Verdict(times=True)}}
    assert found["new"]["run/curves.csv"].difference == "line 3: base '1,0.91', new '1,0.92'"
    assert found["new"]["run/ticket"].difference == "byte 2: base 01, new 02"
    assert table(found).splitlines() == [
        "                new      again",
        "run/curves.csv  DIFFERS  times",
        "run/ticket      DIFFERS  -",
    ]
    assert differences(found) == ["new: run/curves.csv, line 3: base '1,0.91', new '1,0.92' (and 1 more files)"]


def test_the_code_of_another_tree_is_refused(free: SimpleQueue[Interpreter], tmp_path: Path) -> None:
    Code("empty", tmp_path / "tree", free).run(tmp_path, ARGUMENTS)
    said = (tmp_path / "said" / "status").read_text()
    assert re.fullmatch(rf"1: AssertionError: lth_sparse is .*, not of {tmp_path}/tree\n", said)


def test_a_run_that_ends_by_itself_was_not_interrupted(free: SimpleQueue[Interpreter], tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="had ended before it could be killed at state 99"):
        Code("this", ROOT, free).run_and_kill(tmp_path, ARGUMENTS, 99)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *checkouts.AUTHOR, *arguments], cwd=folder, env=checkouts.outside_git(), check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / ".gitignore").write_text("*.so\n")
    for name in ("kept", "edited", "deleted"):
        (root / name).write_text("as committed")
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "one")
    (root / "edited").write_text("as it is now")
    (root / "deleted").unlink()
    (root / "added").write_text("new")
    (root / "built.so").write_text("ignored")
    return root


def files(tree: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in tree.iterdir() if path.is_file() and path.name != ".gitignore"}


def test_the_two_trees_are_the_revision_and_what_is_edited_now(repository: Path, tmp_path: Path) -> None:
    commit = checkouts.commit_called(repository, None)
    checkouts.copy_of_revision(repository, commit, tmp_path / "base")
    checkouts.copy_of_working_tree(repository, tmp_path / "new")
    assert files(tmp_path / "base") == dict.fromkeys(("kept", "edited", "deleted"), "as committed")
    assert files(tmp_path / "new") == {"kept": "as committed", "edited": "as it is now", "added": "new"}


def test_by_default_the_base_is_where_the_branch_left_main(repository: Path) -> None:
    left = checkouts.commit_called(repository, "HEAD")
    git(repository, "checkout", "--quiet", "-b", "work")
    git(repository, "commit", "--quiet", "--all", "--message", "two")
    assert checkouts.commit_called(repository, None) == left
    assert checkouts.commit_called(repository, "HEAD") != left


@pytest.mark.parametrize("revision", ["no-such-branch", "--all"])
def test_an_unknown_revision_is_bad_input(repository: Path, revision: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--base={revision}"], repository) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"python -m tests.unchanged: --base {revision}: there is no such revision in {repository}; see git log"
    )


def test_a_folder_that_is_no_checkout_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{tmp_path} is not a git checkout, so it has no base revision to compare with")


def test_a_folder_without_images_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base=HEAD", f"--images={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"--images {tmp_path}: expected a folder with train/<class>/* and test/<class>/*")
