"""The report of several transfers: one page over the reports of each, with matrices of source by target."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lth_sparse.report import document, matrices, plots
from lth_sparse.report.gallery import Picture
from lth_sparse.report.replicates import beside, count_of
from lth_sparse.report.words import DASH, plus_minus, weights_left
from lth_sparse.storage.arms import CONTROLS, TICKET
from lth_sparse.storage.summary import SummaryRow, Transferred

ABOUT = (
    "Accuracies are means over seeds, in percent of the target's test images, with half their 95 % interval (Student's "
    "t). The ticket starts from its own weights where they fit. Controls have as many live weights in each layer: a "
    "random mask on the target's own initial weights, the ticket's mask on initial weights drawn anew."
)


def headline(source: str, target: str, rows: Sequence[SummaryRow]) -> str:
    """What one transfer came to."""
    dense, *rest = rows
    ticket = next(row for row in rest if row.arm == TICKET.name)
    return (
        f"{source}, to {target}, over {count_of(ticket.seeds)}: {plus_minus(ticket.accuracy, ticket.accuracy_half)} % "
        f"with {weights_left(ticket.density)} of the weights, {ticket.verdict}; the dense network reaches "
        f"{plus_minus(dense.accuracy, dense.accuracy_half)} %{beside(rest, ticket.round)}."
    )


def write(out: Path, transfers: Sequence[Transferred], command: str) -> None:
    """Writes `out/plots/*.png` and `out/report.html`."""
    gallery = [
        Picture(
            f"less-{name}",
            f"The ticket less {against}",
            f"Points of test accuracy of each ticket on each target, less {against}. The table has the numbers.",
            f"Test accuracy of the ticket less that of {against}, in points, with half the 95 % interval.",
            plots.png(matrices.transfers(*_differences(transfers, name), against)),
        )
        for name, against in _references(transfers).items()
    ]
    title = f"Transfer of {len({each.source for each in transfers})} tickets"
    page = document.document(
        title,
        title,
        "Tickets that were found elsewhere",
        f"<p>{escape(ABOUT)}</p>",
        [
            ("transfers", "Each ticket on each target", _table(transfers)),
            document.plots(gallery),
            document.again(command),
        ],
    )
    document.write(out, page, gallery)


def _references(transfers: Sequence[Transferred]) -> dict[str, str]:
    """Arm -> the words for it, of those that a ticket is held against."""
    trained = {row.arm for each in transfers for row in each.rows if row.round == 1}
    found = {"dense": "the dense network"}
    return found | {name: CONTROLS[name].words for name in CONTROLS if name in trained}


def _differences(
    transfers: Sequence[Transferred], name: str
) -> tuple[list[str], list[str], dict[tuple[str, str], SummaryRow]]:
    """Sources, targets, and of each pair the row that holds the ticket's difference from the arm called `name`."""
    sources = list(dict.fromkeys(each.source for each in transfers))
    targets = list(dict.fromkeys(each.target for each in transfers))
    arm = TICKET.name if name == "dense" else name
    rows = {
        (each.source, each.target): row for each in transfers for row in each.rows if row.round == 1 and row.arm == arm
    }
    return sources, targets, rows


def _table(transfers: Sequence[Transferred]) -> str:
    references = [name for name in _references(transfers) if name != "dense"]
    headings = "".join(
        f'<th scope="col">{escape(CONTROLS[name].words)}, %</th><th scope="col">against it</th>' for name in references
    )
    lines = "\n".join(_line(each, references) for each in transfers)
    first = "".join(f'<th scope="col">{name}</th>' for name in ("Ticket", "Target", "Weights left", "dense, %"))
    second = f'<th scope="col">ticket, %</th><th scope="col">against dense</th>{headings}'
    head = f"<tr>{first}\n{second}</tr>"
    return document.table("Table of transfers", head, lines)


def _line(each: Transferred, references: Sequence[str]) -> str:
    dense, *rest = each.rows
    by_arm = {row.arm: row for row in rest}
    ticket = by_arm[TICKET.name]
    cells = [weights_left(ticket.density), _accuracy(dense), _accuracy(ticket), ticket.verdict]
    for name in references:
        row = by_arm.get(name)
        cells += [_accuracy(row), row.verdict] if row is not None else [DASH, DASH]
    target = f'<a href="{escape(each.folder)}/report.html">{escape(each.target)}</a>'
    return (
        f'<tr><th scope="row">{escape(each.source)}</th><td>{target}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _accuracy(row: SummaryRow) -> str:
    return plus_minus(row.accuracy, row.accuracy_half)
