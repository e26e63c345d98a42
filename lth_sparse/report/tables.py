"""The tables of the report as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from lth_sparse.backends.choices import OPERATIONS
from lth_sparse.report.document import table
from lth_sparse.report.words import DASH, error, number, ranges, times, weights_left, wins
from lth_sparse.storage.arms import CONTROLS, TICKET, RecordedArm, beside
from lth_sparse.storage.record import NOT_PROVED, STEP, Chosen, Proof, Record, Round

ARMS = {arm.name: arm.words for arm in (TICKET, *CONTROLS.values())}


def _points(fraction: float | None) -> str:
    """An accuracy in the table: its unit stands in the heading."""
    return number(None if fraction is None else 100 * fraction, ".2f")


Column = tuple[str, str, Callable[[Round], str]]

Groups = list[tuple[str, list[Column]]]

# Heading, explanation, cell. Groups of columns carry one heading over all of them.
GROUPS: Groups = [
    (
        "Test accuracy, %",
        [
            (
                "before pruning",
                "The trained network that this round prunes, its weights still in place.",
                lambda row: _points(row.accuracy_before_prune),
            ),
            (
                "after pruning",
                "The same weights, pruned and not retrained.",
                lambda row: _points(row.accuracy_after_prune),
            ),
            (
                "rewound",
                "The ticket with its weights rewound, not retrained.",
                lambda row: _points(row.accuracy_rewound),
            ),
            (
                "retrained",
                "The ticket trained to the end: the accuracy that counts.",
                lambda row: f"<strong>{_points(row.accuracy_retrained)}</strong>",
            ),
            (
                "early stop",
                "The ticket at its iteration of minimum validation loss.",
                lambda row: _points(row.accuracy_early_stop),
            ),
        ],
    ),
    (
        "Validation",
        [
            (
                "accuracy, %",
                "The retrained ticket on the validation set. It alone decides which rounds win.",
                lambda row: _points(row.accuracy_validation),
            ),
            (
                "early-stop iteration",
                "Where the validation loss is lowest: fewer iterations mean that the ticket learns faster.",
                lambda row: number(row.early_stop_iteration),
            ),
        ],
    ),
    (
        "Training step",
        [
            (
                "ms",
                "Time of one training step of this ticket with the run's backend.",
                lambda row: number(row.step_ms, ".2f"),
            ),
            (
                "dense ms",
                "Time of the same step in masked dense PyTorch, measured side by side.",
                lambda row: number(row.dense_step_ms, ".2f"),
            ),
            (
                "speedup",
                "Time in masked dense PyTorch over time with the run's backend.",
                lambda row: times(row.speedup),
            ),
            (
                "max relative error",
                "Largest difference of the outputs from masked dense in float64, over the largest output.",
                lambda row: error(row.max_relative_error),
            ),
        ],
    ),
]


GRADIENTS: tuple[str, list[Column]] = (
    "Gradients, bytes",
    [
        (
            "a step",
            "Of the gradients that the processes average in a training step of this ticket.",
            lambda row: number(row.gradient_bytes),
        ),
        (
            "dense",
            "The same of the dense network.",
            lambda row: number(row.dense_gradient_bytes),
        ),
    ],
)


def _groups(record: Record) -> Groups:
    """With a column for each control that was trained, and, of several processes, what travelled between them."""
    trained = dict.fromkeys(arm for row in record.rounds for arm, _ in beside(row))
    (heading, columns), *others = GROUPS
    travelled = [GRADIENTS] if any(row.gradient_bytes is not None for row in record.rounds) else []
    return [(heading, columns + [_control(arm) for arm in trained]), *others, *travelled]


def _control(arm: RecordedArm) -> Column:
    return arm.words, f"A control: {arm.says}, trained alike.", lambda row: _points(arm.of(row))


def rounds_table(record: Record) -> str:
    """A row a round; the winning rounds and the chosen ticket are marked in words."""
    shown = _groups(record)
    groups = "".join(f'<th scope="colgroup" colspan="{len(columns)}">{heading}</th>' for heading, columns in shown)
    headings = "".join(f'<th scope="col">{column[0]}</th>' for _, columns in shown for column in columns)
    best = record.best_ticket() if len(record.rounds) > 1 else None
    rows = "\n".join(_round(row, record, row is best, shown) for row in record.rounds)
    head = f"""<tr><th scope="col" rowspan="2">Round</th><th scope="col" rowspan="2">Weights left</th>{groups}</tr>
<tr>{headings}</tr>"""
    return table("Table of rounds", head, rows)


def _round(row: Round, record: Record, chosen: bool, groups: Groups) -> str:
    marks = []
    if row.round == 0:
        marks.append('<span class="mark">dense</span>')
    if wins(row, record):
        marks.append('<span class="mark win">✓ wins</span>')
    if chosen:
        marks.append('<span class="mark">chosen</span>')
    cells = "".join(f"<td>{cell(row)}</td>" for _, columns in groups for _, _, cell in columns)
    opening = '<tr class="win">' if wins(row, record) else "<tr>"
    left = weights_left(row.density)
    return f'{opening}<th scope="row">{row.round} {" ".join(marks)}</th><td>{left}</td>{cells}</tr>'


def explanations(record: Record) -> str:
    """What each column of the table of rounds holds."""
    lines = "\n".join(
        f"<div><dt>{heading}: {name}</dt><dd>{text}</dd></div>"
        for heading, columns in ((group.partition(",")[0], columns) for group, columns in _groups(record))
        for name, text, _ in columns
    )
    return f'<dl class="columns">\n{lines}\n</dl>'


def choices_tables(chosen: list[Chosen]) -> str:
    """What the auto backend chose: a line a round, which opens to a row a layer."""
    return "\n".join(
        _choices([row for row in chosen if row.round == step.round and row.operation != STEP], step)
        for step in chosen
        if step.operation == STEP
    )


def _choices(rows: list[Chosen], step: Chosen) -> str:
    heading = escape(f"Round {step.round}, {weights_left(step.density)} of the weights left: {step.sentence()}.")
    if not rows:
        return f"<p>{heading}</p>"
    headings = "".join(f'<th scope="col">{name.replace("_", " ")}, ms</th>' for name in OPERATIONS)
    layers = "\n".join(
        _layer(name, [r for r in rows if r.layer == name]) for name in dict.fromkeys(r.layer for r in rows)
    )
    notes = "".join(f"<li>{escape(f'{r.layer}, {r.operation}: {r.note}')}</li>" for r in rows if r.note)
    head = f'<tr><th scope="col">Layer</th><th scope="col">Weights left</th>{headings}</tr>'
    return f"""<details><summary>{heading}</summary>
{table(f"Choices of round {step.round}", head, layers)}
{f"<ul>{notes}</ul>" if notes else ""}</details>"""


def _layer(name: str, rows: list[Chosen]) -> str:
    times = {row.operation: row.times() for row in rows}
    cells = "".join(f"<td>{escape(times.get(operation, DASH))}</td>" for operation in OPERATIONS)
    return f'<tr><th scope="row">{escape(name)}</th><td>{weights_left(rows[0].density)}</td>{cells}</tr>'


def proofs_table(proofs: list[Proof]) -> str:
    """Every statement of the rewind proof once, with the rounds and arms in which it was checked."""
    statements = dict.fromkeys(proof.statement for proof in proofs)
    rows = "\n".join(_proof(statement, [p for p in proofs if p.statement == statement]) for statement in statements)
    return f"""<ul class="proofs">
{rows}
</ul>"""


def _proof(statement: str, proofs: list[Proof]) -> str:
    by_arm: dict[str, set[int]] = {}
    for proof in proofs:
        by_arm.setdefault(ARMS.get(proof.arm, proof.arm), set()).add(proof.round)
    together: dict[frozenset[int], list[str]] = {}
    for arm, rounds in by_arm.items():
        together.setdefault(frozenset(rounds), []).append(arm)
    where = "; ".join(f"{_rounds(set(rounds))}, {', '.join(arms)}" for rounds, arms in together.items())
    details = list(dict.fromkeys(proof.detail for proof in proofs if proof.detail))
    if len(details) == 1:
        more = f'<p class="quiet">{escape(details[0])}</p>'
    elif details:
        lines = "".join(
            f"<li>round {proof.round}, {escape(ARMS.get(proof.arm, proof.arm))}: {escape(proof.detail)}</li>"
            for proof in proofs
        )
        more = f"<details><summary>all {len(proofs)} checks</summary><ul>{lines}</ul></details>"
    else:
        more = ""
    checked = "" if statement.startswith(NOT_PROVED) else "checked in "
    return f"<li><strong>{escape(statement)}</strong> — {checked}{escape(where)}.{more}</li>"


def _rounds(rounds: set[int]) -> str:
    return f"{'round' if len(rounds) == 1 else 'rounds'} {ranges(rounds)}"


def facts(entries: Iterable[tuple[str, Any]]) -> str:
    """Names and values, such as settings, one beside the other."""
    rows = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(shown(value))}</dd></div>" for name, value in entries)
    return f'<dl class="facts">\n{rows}\n</dl>'


def shown(value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None or value == "" or value == [] or value == ():
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return number(value, ".6g")
    return str(value)
