"""The report of published claims: what each says, what came out here, and what that says of the claim."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lth_sparse.report import document
from lth_sparse.report.words import DASH, duration, number, plus_minus, weights_left
from lth_sparse.storage.summary import Claimed, Judged

ABOUT = (
    "Ours: the mean over seeds with half its 95 % interval (Student's t), differences taken within a seed. A statement "
    "holds where the whole interval is on its side, does not where the whole interval is on the other, and too few "
    "seeds say nothing. What is about levels, or about networks trained to the end, a smaller size cannot test."
)
HEADINGS = ("Statement", "published", "ours", "seeds", "weights left", "verdict")


def sentence(each: Judged) -> str:
    """What came out of a statement, in a line."""
    return f"{each.claim}: {each.statement}: {each.verdict} (published {each.published}; here {ours(each)})"


def ours(each: Judged) -> str:
    """Our figure, with its unit and its interval."""
    if each.unit == "steps":
        half = "" if each.ours_half is None else f" ± {number(each.ours_half)}"
        return f"{number(each.ours)}{half} steps"
    return f"{plus_minus(each.ours, each.ours_half)} {each.unit}"


def write(out: Path, done: Sequence[Claimed], count: int, command: str) -> None:
    """Writes `out/report.html`, of what is `done` of `count` claims."""
    failed = sum(bool(each.failed) for each in done)
    page = document.document(
        "Published claims",
        f"{len(done)} of {count} claims are tested" + (f", {failed} of them failed" if failed else ""),
        "Published claims, tested here",
        f"<p>{escape(ABOUT)}</p>",
        [*((each.name, each.name, _claim(each)) for each in done), document.again(command)],
    )
    document.write(out, page, [])


def _claim(each: Claimed) -> str:
    source = f"<p>{escape(each.source)}.</p>"
    if each.failed:
        return f"{source}\n<p>It could not be tested: {escape(each.failed)}</p>"
    size = f"Size {each.size}" + (f": {each.instead}" if each.instead else "") + f"; {duration(each.seconds)}."
    titles = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
    lines = "\n".join(map(_line, each.judged))
    table = document.table(f"Statements of {each.name}", f"<tr>{titles}</tr>", lines)
    return f'{source}\n<p class="quiet">{escape(size)}</p>\n{table}'


def _line(each: Judged) -> str:
    cells = (each.published, ours(each), str(each.seeds), weights_left(each.density) or DASH, each.verdict)
    return (
        f'<tr><th scope="row">{escape(each.statement)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
    )
