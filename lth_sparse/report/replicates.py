"""The report of a lottery on several seeds: one page over the reports of the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lth_sparse.report import document, instability_plots, plots
from lth_sparse.report.gallery import Picture
from lth_sparse.report.instability import ABOUT as ABOUT_INSTABILITY
from lth_sparse.report.instability import stabilities_table
from lth_sparse.report.words import DASH, duration, labelled, plus_minus, subject, times, weights_left
from lth_sparse.storage.arms import CONTROLS, TICKET
from lth_sparse.storage.summary import BETTER, MATCHING, TOO_FEW, StabilityRow, SummaryRow

ABOUT = (
    "Accuracies are means over seeds, in percent of the test images, with half their 95 % interval (Student's t). A "
    "difference is the ticket's accuracy less that of the dense network or the control, taken within each seed, in "
    "points. A ticket matches the dense network where its interval leaves it no more than a point behind. The test set "
    "selects nothing: every density is shown."
)


def write(
    out: Path, info: dict[str, Any], rows: Sequence[SummaryRow], said: str, pairs: Sequence[StabilityRow]
) -> None:
    """Writes `out/plots/*.png` and `out/report.html`. `info`: the content of `replicates.json`. `said`: the headline.
    `pairs`: of the analysis of instability, empty where it was not asked for."""
    gallery = []
    if rows[-1].round > 0:
        gallery.append(
            Picture(
                "accuracy",
                "Accuracy against sparsity",
                "Mean test accuracy against weights left, of tickets and their controls. The table has the numbers.",
                "Mean test accuracy over seeds; the bands are the 95 % intervals of the means.",
                plots.png(plots.bands(rows, subject(info))),
            )
        )
    if pairs:
        gallery.append(
            Picture(
                "instability",
                "Instability",
                "Mean error barrier between two copies, against the step of the dense network that they start from, "
                "and against weights left for tickets. The table has the numbers.",
                "Mean error barrier over seeds, with the 95 % intervals of the means. Under the dotted line is stable.",
                plots.png(instability_plots.barriers(pairs, [row.barrier_half or 0.0 for row in pairs], subject(info))),
            )
        )
    instability = f"<p>{escape(ABOUT_INSTABILITY)}</p>\n{stabilities_table(pairs)}"
    seeds = [f'<a href="seed-{seed}/report.html">seed {seed}</a>' for seed in info["seeds"]]
    title = f"Lottery tickets: {subject(info)}, {count_of(len(seeds))}"
    page = document.document(
        title,
        title,
        labelled(info, said),
        f"<p>{escape(ABOUT)}</p>\n<p>{escape(times_of_training(info))}</p>",
        [
            ("densities", "By density", _table(rows)),
            *([("instability", "Instability", instability)] if pairs else []),
            document.plots(gallery, "Plots" if len(gallery) > 1 else "Plot"),
            ("seeds", "Seeds", f"<p>{', '.join(seeds)}</p>"),
            document.again(str(info["command"])),
        ],
    )
    document.write(out, page, gallery)


def headline(rows: Sequence[SummaryRow]) -> str:
    """Down to which density tickets match the dense network, and what the controls come to there."""
    dense, *pruned = rows
    of_dense = f"the dense network reaches {plus_minus(dense.accuracy, dense.accuracy_half)} %"
    tickets = [row for row in pruned if row.arm == TICKET.name]
    if not tickets:
        return f"Over {count_of(dense.seeds)}, {of_dense}; nothing was pruned."
    down_to = matching(tickets)
    some = [row for row in tickets if row.verdict in (BETTER, MATCHING)]
    row = down_to or (some[-1] if some else tickets[0])
    reached = f"{plus_minus(row.accuracy, row.accuracy_half)} % with {weights_left(row.density)} of the weights"
    if down_to is not None:
        said = f"Over {count_of(dense.seeds)}, tickets match down to {weights_left(row.density)} of the weights"
    elif some:
        said = f"Over {count_of(dense.seeds)}, not every denser ticket matches, but this one does"
    elif any(row.verdict == TOO_FEW for row in tickets):
        said = f"{count_of(dense.seeds)} are too few to say whether tickets match"
    else:
        said = f"Over {count_of(dense.seeds)}, no ticket matches"
    return f"{said}: {reached}, {of_dense}{beside(pruned, row.round)}."


def times_of_training(info: Mapping[str, Any]) -> str:
    """What all trainings took, beside masked dense PyTorch, in a sentence; "" where an older version measured none.
    `info`: the content of `replicates.json`."""
    if (found := info.get("training")) is None:
        return ""
    seconds, dense, changing = found["seconds"], found["dense_seconds"], found["changing_seconds"]
    said = (
        f"The steps of all {found['trainings']} trainings took {duration(seconds)}; by masked dense PyTorch's they "
        f"take {duration(dense)}, {dense / seconds:.2f} times as long."
    )
    if changing:
        said += (
            f" Of the tickets' trainings, changes of their topology took {found['repacking_seconds'] / changing:.1%}, "
            f"and the dense gradients for them {found['dense_gradient_seconds'] / changing:.1%}."
        )
    return said


def matching(tickets: Sequence[SummaryRow]) -> SummaryRow | None:
    """The sparsest of these, which are in the order of their rounds, down to which all match the dense network."""
    down_to = None
    for row in tickets:
        if row.verdict not in (BETTER, MATCHING):
            break
        down_to = row
    return down_to


def beside(rows: Sequence[SummaryRow], round: int) -> str:
    """What the controls of `round` come to, to be added to a sentence about its ticket."""
    return "".join(
        f"; {CONTROLS[each.arm].words} {plus_minus(each.accuracy, each.accuracy_half)} %, {_seen(each.verdict)}"
        for each in rows
        if each.round == round and each.arm != TICKET.name
    )


def _seen(verdict: str) -> str:
    return verdict if verdict == TOO_FEW else f"the ticket is {verdict.partition(' than ')[0]}"


def count_of(seeds: int) -> str:
    """In words."""
    return f"{seeds} seed{'s' if seeds != 1 else ''}"


def _table(rows: Sequence[SummaryRow]) -> str:
    arms = [name for name in (TICKET.name, *CONTROLS) if any(row.arm == name for row in rows[1:])] or [TICKET.name]
    words = {TICKET.name: "ticket"} | {name: arm.words for name, arm in CONTROLS.items()}
    against = {TICKET.name: "less dense"} | dict.fromkeys(CONTROLS, "ticket less it")
    above = "".join(f'<th scope="colgroup" colspan="3">{escape(words[name])}</th>' for name in arms)
    below = "".join(
        f'<th scope="col">accuracy, %</th><th scope="col">{against[name]}, points</th><th scope="col">verdict</th>'
        for name in arms
    )
    lines = "\n".join(
        _line([row for row in rows if row.round == round], arms) for round in sorted({r.round for r in rows})
    )
    head = f"""<tr><th scope="col" rowspan="2">Round</th><th scope="col" rowspan="2">Weights left</th>{above}
<th scope="col" rowspan="2">Speedup of a step</th></tr>
<tr>{below}</tr>"""
    return document.table("Table of densities", head, lines)


def _line(of_round: Sequence[SummaryRow], arms: Sequence[str]) -> str:
    by_arm = {row.arm: row for row in of_round}
    ticket = by_arm[TICKET.name]
    mark = ' <span class="mark">dense</span>' if ticket.round == 0 else ""
    cells = "".join(_cells(by_arm.get(name)) for name in arms)
    opening = '<tr class="win">' if ticket.verdict in (BETTER, MATCHING) else "<tr>"
    return (
        f'{opening}<th scope="row">{ticket.round}{mark}</th><td>{weights_left(ticket.density)}</td>{cells}'
        f"<td>{times(ticket.speedup)}</td></tr>"
    )


def _cells(row: SummaryRow | None) -> str:
    if row is None:
        return f"<td>{DASH}</td>" * 3
    found = (
        plus_minus(row.accuracy, row.accuracy_half),
        plus_minus(row.difference, row.difference_half),
        row.verdict or DASH,
    )
    return "".join(f"<td>{escape(each)}</td>" for each in found)
