"""Instability in sentences and as a table, of one run and of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lth_sparse.report.document import table
from lth_sparse.report.words import plus_minus, weights_left
from lth_sparse.storage.instability import THRESHOLD, Barrier
from lth_sparse.storage.summary import STABLE, UNSTABLE, StabilityRow

ABOUT = (
    "Two copies of one network are trained from the same weights in different orders of the images, and the error is "
    "evaluated at 30 points on the line between their ends (Frankle et al. 2020). The barrier is the highest error on "
    f"the line less the mean of its ends; a network is stable where it is under {100 * THRESHOLD:g} points."
)


def sentence(row: Barrier) -> str:
    """What came out of one pair of copies."""
    return (
        f"{_who(row)}, two copies from step {row.step}: the test error on the line between them rises by "
        f"{100 * row.barrier:.2f} points, {verdict(row)}"
    )


def verdict(row: Barrier) -> str:
    """In a word."""
    return STABLE if row.stable else UNSTABLE


def headline(rows: Sequence[Barrier]) -> str:
    """What came out of all pairs of a run."""
    dense, tickets = [row for row in rows if row.round == 0], [row for row in rows if row.round > 0]
    said = [f"step {row.step} {verdict(row)} ({100 * row.barrier:.2f} points)" for row in dense]
    parts = [f"the dense network from {', '.join(said)}"]
    if tickets:
        stable = [row for row in tickets if row.stable]
        part = f"tickets from step {tickets[0].step}, {len(stable)} of {len(tickets)} stable"
        parts.append(
            part + (f", the sparsest with {weights_left(stable[-1].density)} of the weights" if stable else "")
        )
    return f"Instability: {'; '.join(parts)}"


def headline_of_seeds(rows: Sequence[StabilityRow]) -> str:
    """The same over seeds."""
    said = [
        f"{_who(row)} from step {row.step} {row.verdict} ({plus_minus(row.barrier, row.barrier_half)} points)"
        for row in rows
    ]
    return f"Instability: {'; '.join(said)}"


def barriers_table(rows: Sequence[Barrier]) -> str:
    """A row a pair."""
    headings = ("Network", "copied at step", "barrier, points", "verdict", "error at the ends, %", "highest, %",
                "barrier on training images, points")  # fmt: skip
    return _table(
        headings,
        [
            (
                _who(row),
                f"{row.step:,}",
                f"{100 * row.barrier:.2f}",
                verdict(row),
                f"{100 * row.error_first:.2f}; {100 * row.error_second:.2f}",
                f"{100 * row.error_highest:.2f}",
                f"{100 * row.train_barrier:.2f}",
            )
            for row in rows
        ],
        [row.stable for row in rows],
    )


def stabilities_table(rows: Sequence[StabilityRow]) -> str:
    """A row a pair, over seeds."""
    return _table(
        ("Network", "copied at step", "barrier, points", "verdict"),
        [(_who(row), f"{row.step:,}", plus_minus(row.barrier, row.barrier_half), row.verdict) for row in rows],
        [row.verdict == STABLE for row in rows],
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    lines = []
    for (who, *cells), win in zip(rows, marked, strict=True):
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        opening = '<tr class="win">' if win else "<tr>"
        lines.append(f'{opening}<th scope="row">{escape(who)}</th>{shown}</tr>')
    return table("Table of instability", f"<tr>{head}</tr>", "\n".join(lines))


def _who(row: Barrier | StabilityRow) -> str:
    return "dense" if row.round == 0 else f"ticket of round {row.round}, {weights_left(row.density)} left"
