"""The tests of the pages can fail: each way in which a page may be wrong, made once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document
from sybil.example import SybilFailure

from lth_sparse.system.errors import InputError
from tests.docs import pages
from tests.docs.cuts import CUTS, shortened
from tests.docs.pages import FIGURES, PAGES, ROOT, SCRIPTS, Checkout, Pages, commands, read_by_the_real_parser

WRITTEN = [path for pattern in PAGES for path in ROOT.glob(pattern)]


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    made = Checkout()
    yield made
    made.remove()


def parsed(folder: Path, text: str, checkout: Checkout) -> Document:
    (folder / "page.md").write_text(text)
    document = Pages([pages.CodeBlockParser("python", pages._python), pages.Commands()]).parse(folder / "page.md")
    document.namespace["_checkout"] = checkout
    return document


def test_a_command_that_fails_is_shown_with_its_page_its_line_and_what_it_said(
    tmp_path: Path, checkout: Checkout
) -> None:
    page = "# Title\n\n```bash\necho fine\nls /nowhere/at/all   # a comment\n```\n"
    fine, failing = parsed(tmp_path, page, checkout).examples()
    fine.evaluate()
    assert (fine.line, failing.line) == (4, 5)
    with pytest.raises(SybilFailure, match=r"page\.md, line 5.*\n.*ls /nowhere/at/all\nexit status 2\n.*No such file"):
        failing.evaluate()


def test_python_blocks_share_names_and_the_folder_of_the_commands(tmp_path: Path, checkout: Checkout) -> None:
    blocks = ("bash\necho 7 > number", "python\nx = int(open('number').read())", "python\n1 / (x - 7)")
    page = "\n".join(f"```{block}\n```\n" for block in blocks)
    command, first, second = parsed(tmp_path, page, checkout).examples()
    command.evaluate()
    before = Path.cwd()
    first.evaluate()
    with pytest.raises(ZeroDivisionError):
        second.evaluate()
    assert Path.cwd() == before


def test_a_command_that_takes_too_long_asks_for_a_row_of_the_table(checkout: Checkout) -> None:
    failed = checkout.run("sleep 30", limit=0.5)
    assert failed is not None
    assert "it took more than 0.5 seconds; a row of CUTS in tests/docs/cuts.py can cut it short" in failed


@pytest.mark.parametrize(
    "options", ["--epoch 3", "--model conv5000 --rounds", "--prune-rate 2", "--epochs 1 --iterations 9"]
)
def test_options_are_read_as_they_stand_though_the_command_is_cut(options: str) -> None:
    with pytest.raises(InputError):
        read_by_the_real_parser(f"python -m lth_sparse.run {options}")


@pytest.mark.parametrize("page", FIGURES)
def test_options_of_commands_that_only_the_long_tests_run_are_read(page: str) -> None:
    given = [command for _, _, command in commands((ROOT / page).read_text())]
    assert given
    for command in given:
        read_by_the_real_parser(command)


def test_commands_are_found_in_blocks_in_the_text_and_in_tables() -> None:
    text = (
        '`make bench`, `ARGS="-m cpu"` and `the code`\n\n| `python -m lth_sparse.run` ... | what |\n|---|---|\n'
        "| nothing more | it |\n| `--seed 1` | that |\n\n"
        "```bash\n# nothing\nmake run   # a run\necho a \\\n  b\n```\n\n"
        "```text\nmake coffee\n```\n"
    )
    assert {command for _, _, command in commands(text)} == {
        "make bench", 'make bench ARGS="-m cpu"', "python -m lth_sparse.run", "python -m lth_sparse.run --seed 1",
        "make run", "echo a \\\n  b",
    }  # fmt: skip


def test_a_lottery_is_cut_to_a_few_steps_and_plays_as_many_rounds_as_its_page_names_tickets() -> None:
    given, reason = shortened(
        "python -m lth_sparse.run --dataset folder --data-dir ~/images --epochs 9 --out a", rounds=4
    )
    assert given == (
        "python -m lth_sparse.run --out a --dataset digits --evaluate-every 10 --rewind-iteration 0 "
        "--iterations 10 --rounds 4"
    )
    assert reason
    assert shortened("python -m lth_sparse.doctor") == ("python -m lth_sparse.doctor", "")


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Every command of every page and script."""
    texts = [path.read_text() for pattern in (*PAGES, *SCRIPTS) for path in ROOT.glob(pattern)]
    return {command for text in texts for _, _, command in commands(text)}


def test_every_row_of_the_table_is_for_a_command_that_a_page_has(shown: set[str]) -> None:
    first = {next((cut for cut in CUTS if re.search(cut.command, command)), None) for command in shown}
    assert [cut.command for cut in CUTS if cut not in first] == []


def test_no_page_judges_a_speed_while_other_tests_run_beside_it(shown: set[str]) -> None:
    """Uncut are the commands of bench that measure no time."""
    whole = {
        command for command in shown if command.startswith("python -m bench.") and shortened(command)[0] == command
    }
    assert whole == {"python -m bench.cuda_kernels", "python -m bench.worker memory conv4 cpp"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_names_its_language_so_that_none_is_left_out(page: Path) -> None:
    languages = {found[1] for found in pages.BLOCK.finditer(page.read_text())}
    assert languages <= {"bash", "python", "text", "{eval-rst}", "{toctree}"}
