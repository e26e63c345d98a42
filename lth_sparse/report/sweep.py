"""The report of a sweep: one page over the reports of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lth_sparse.report import document, plots
from lth_sparse.report.gallery import Picture
from lth_sparse.report.replicates import matching
from lth_sparse.report.words import DASH, plus_minus, times, weights_left
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.summary import Swept

ABOUT = (
    "Accuracies are means over seeds, in percent of the test images, with half their 95 % interval (Student's t). Each "
    "run has a page of its own, with every density and every control; sweep.csv has the rows of all."
)


def write(out: Path, done: Sequence[Swept], count: int, command: str) -> None:
    """Writes `out/plots/accuracy.png` and `out/report.html`, of what is `done` of `count` runs."""
    gallery = []
    curves = {each.name: [row for row in each.rows if row.arm == TICKET.name] for each in done if each.rows}
    if curves:
        gallery.append(
            Picture(
                "accuracy",
                "Accuracy of the tickets of every run",
                "Mean test accuracy of the tickets of each run against weights left. Each run's page has the numbers.",
                "Mean test accuracy over seeds against weights left; "
                + (
                    "the bands are the 95 % intervals of the means."
                    if len(curves) <= plots.MOST_NAMED_RUNS
                    else "there are too many runs to name them here, and the table has each."
                ),
                plots.png(plots.runs(curves)),
            )
        )
    failed = sum(bool(each.failed) for each in done)
    page = document.document(
        "Sweep",
        f"{len(done)} of {count} runs are over" + (f", {failed} of them failed" if failed else ""),
        f"A sweep of {count} runs",
        f"<p>{escape(ABOUT)}</p>",
        [("runs", "Runs", _table(done)), document.plots(gallery, "Plot"), document.again(command)],
    )
    document.write(out, page, gallery)


def _table(done: Sequence[Swept]) -> str:
    lines = "\n".join(_failed(each) if each.failed else _line(each) for each in done)
    headings = ("Run", "dense, %", "matches down to", "last ticket: weights left", "accuracy, %", "less dense, points",
                "verdict", "speedup of its step")  # fmt: skip
    titles = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return document.table("Table of runs", f"<tr>{titles}</tr>", lines)


def _line(each: Swept) -> str:
    tickets = [row for row in each.rows if row.arm == TICKET.name]
    dense, last, down_to = tickets[0], tickets[-1], matching(tickets[1:])
    cells = [
        plus_minus(dense.accuracy, dense.accuracy_half),
        DASH if down_to is None else weights_left(down_to.density),
        weights_left(last.density),
        plus_minus(last.accuracy, last.accuracy_half),
        plus_minus(last.difference, last.difference_half),
        last.verdict or DASH,
        times(last.speedup),
    ]
    return f"{_row(each)}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _failed(each: Swept) -> str:
    return f'{_row(each)}<td colspan="7">failed: {escape(each.failed)}</td></tr>'


def _row(each: Swept) -> str:
    name = escape(each.name)
    linked = f'<a href="{escape(each.folder)}/report.html">{name}</a>' if each.rows else name
    return f'<tr><th scope="row">{linked}</th>'
