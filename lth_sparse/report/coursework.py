"""The page of the coursework's study: every sparsity and split, corrected, emulated, and as it was published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from lth_sparse.report import document
from lth_sparse.report.words import DASH, TIMES, percent, plus_minus
from lth_sparse.storage.summary import Estimate, Studied, Swept

CORRECTED, EMULATION = "corrected", "emulation"
PRUNINGS = ("LTH", "random")
FIGURES: tuple[tuple[str, Callable[[Studied], Estimate]], ...] = (
    ("dense", lambda row: row.dense),
    ("before pruning", lambda row: row.before),
    ("after pruning", lambda row: row.after),
    ("retrained", lambda row: row.retrained),
)
ABOUT = (
    "Test accuracies in percent, means over seeds, with half their 95 % interval where there are several. Before "
    "pruning: the trained network that the last round prunes; after pruning: the same weights, not retrained; "
    "retrained: after the training that follows. What was published is of the coursework's network on CIFAR-10, each "
    "figure of whichever rounds and epochs it chose."
)
CORRECTIONS = (
    "Corrected: every round goes back to a copy of the initial weights, which is proved, with a new optimizer, and is "
    "trained again after its pruning; rounds and epochs are chosen on validation images."
)
EMULATED = (
    "Emulation: the coursework's mistakes, made on purpose. Its initial weights were saved without a copy, so that "
    "nothing is rewound; its optimizer lives on from round to round; it ends on a pruning without retraining; and "
    "rounds and epochs are chosen on the test images, as the highest accuracy there. No rewind of these runs is "
    "proved, for there is none."
)


def write(
    out: Path,
    rows: Sequence[Studied],
    failed: Sequence[Swept],
    count: int,
    subject: str,
    published_dense: float,
    reduced: str,
    command: str,
) -> None:
    """Writes `out/report.html`. `rows`: of the runs that are over, of `count`; `failed`: those that came to nothing.
    `subject`: the network and the data. `reduced`: what was made smaller than it was."""
    over = len(rows) + len(failed)
    ways = " and emulated" if any(row.emulated for row in rows) else ""
    emulated = any(row.emulated for row in rows)
    opening = [ABOUT, CORRECTIONS, *([EMULATED] if emulated else []), reduced]
    failures = "".join(f"<li>{escape(each.name)}: {escape(each.failed)}</li>" for each in failed)
    page = document.document(
        "The coursework's comparison",
        f"{over} of {count} runs are over" + (f", {len(failed)} of them failed" if failed else ""),
        f"The coursework's comparison, corrected{ways}: {subject or 'nothing is over yet'}",
        "\n".join(f"<p>{escape(sentence)}</p>" for sentence in opening),
        [
            ("sparsities", "By sparsity", _by_sparsity(rows, emulated, published_dense)),
            ("runs", "Every run", _every(rows, emulated)),
            *([("failed", "Failed", f"<ul>{failures}</ul>")] if failed else []),
            document.again(command),
        ],
    )
    document.write(out, page, [])


def _by_sparsity(rows: Sequence[Studied], emulated: bool, published_dense: float) -> str:
    """Of each sparsity, what the splits are summed up by: the one that its way of choosing chooses."""
    groups = [("Published", None), *([("Emulation, after pruning", True)] if emulated else []), ("Corrected", False)]
    above = "".join(
        f'<th scope="colgroup" colspan="{3 if of is False else 2}">{escape(name)}</th>' for name, of in groups
    )
    below = "".join(
        "".join(f'<th scope="col">{name}</th>' for name in (*PRUNINGS, *(["dense"] if of is False else [])))
        for _, of in groups
    )
    head = f'<tr><th scope="col" rowspan="2">Sparsity</th>{above}</tr>\n<tr>{below}</tr>'
    lines = []
    for sparsity in sorted({row.sparsity for row in rows}):
        here = [row for row in rows if row.sparsity == sparsity]
        cells = [_published(here, pruning) for pruning in PRUNINGS]
        if emulated:
            cells += [
                _chosen(here, pruning, True, lambda row: row.after.mean, lambda row: row.after) for pruning in PRUNINGS
            ]
        cells += [
            _chosen(here, pruning, False, lambda row: row.validation, lambda row: row.retrained) for pruning in PRUNINGS
        ]
        cells.append(_chosen(here, PRUNINGS[0], False, lambda row: row.validation, lambda row: row.dense))
        lines.append(_line(percent(sparsity, 0), cells))
    dense = f"<p>The coursework's dense network: {percent(published_dense)}.</p>"
    return dense + "\n" + document.table("Table of sparsities", head, "\n".join(lines))


def _published(rows: Sequence[Studied], pruning: str) -> str:
    found = [row.published for row in rows if row.pruning == pruning and row.published is not None]
    return format(100 * found[0], ".2f") if found else DASH


def _chosen(
    rows: Sequence[Studied],
    pruning: str,
    emulated: bool,
    by: Callable[[Studied], float],
    figure: Callable[[Studied], Estimate],
) -> str:
    """The `figure` of the split that is highest `by` what chooses, and which one that is."""
    candidates = [row for row in rows if row.pruning == pruning and row.emulated == emulated]
    if not candidates:
        return DASH
    best = max(candidates, key=by)
    return f"{_accuracy(figure(best))} ({_split(best)})"


def _split(row: Studied) -> str:
    return f"{row.rounds} {TIMES} {row.epochs}"


def _accuracy(found: Estimate) -> str:
    return plus_minus(found.mean, found.half)


def _every(rows: Sequence[Studied], emulated: bool) -> str:
    ways = [False, *([True] if emulated else [])]
    above = "".join(
        f'<th scope="colgroup" colspan="{len(FIGURES)}">{EMULATION if way else CORRECTED}</th>' for way in ways
    )
    below = "".join(f'<th scope="col">{name}</th>' for name, _ in FIGURES) * len(ways)
    head = f"""<tr><th scope="col" rowspan="2">Run</th><th scope="col" rowspan="2">steps a training</th>{above}
<th scope="col" rowspan="2">published</th></tr>
<tr>{below}</tr>"""
    found = {(row.sparsity, row.rounds, row.epochs, row.pruning, row.emulated): row for row in rows}
    lines = []
    for sparsity, rounds, epochs, pruning in dict.fromkeys(key[:-1] for key in found):
        of_ways = [found.get((sparsity, rounds, epochs, pruning, way)) for way in ways]
        known = next(row for row in of_ways if row is not None)
        cells = [f"{known.iterations:,}"]
        for row in of_ways:
            cells += [DASH if row is None else _accuracy(figure(row)) for _, figure in FIGURES]
        name = f"{percent(sparsity, 0)}, {_split(known)}, {pruning}"
        links = [_link(row, EMULATION if row.emulated else name) for row in of_ways if row is not None]
        lines.append(_line(", ".join(links), [*cells, _published([known], pruning)]))
    return document.table("Table of runs", head, "\n".join(lines))


def _link(row: Studied, name: str) -> str:
    return f'<a href="{escape(row.folder)}/report.html">{escape(name)}</a>'


def _line(heading: str, cells: Sequence[str]) -> str:
    """`heading`: HTML."""
    return f'<tr><th scope="row">{heading}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
