"""The study of the coursework: what it retrained and what it pruned, corrected and with its mistakes."""

from __future__ import annotations

from bench.page import words
from lth_sparse.report.words import plus_minus

Row = dict[str, str]
SPARSITY = 0.5
"""The one that is shown; the file has all."""
ARMS = (("LTH", "emulation"), ("LTH", "corrected"), ("random", "emulation"), ("random", "corrected"))


def table(rows: list[Row]) -> list[str]:
    """At `SPARSITY`, a column for each split of the epochs: test accuracy % and half its 95 % interval over seeds, of
    the dense network after one training, and of each way to prune after the last pruning and the training that follows.
    """
    chosen = [row for row in rows if float(row["sparsity"]) == SPARSITY]
    splits = list(dict.fromkeys((row["rounds"], row["epochs"]) for row in chosen))
    lines = []
    for number, (pruning, way) in enumerate(ARMS):
        found = [_row(chosen, split, pruning, way) for split in splits]
        if number == 0:
            lines.append(["dense, after one training", *(_accuracy(row, "dense") for row in found)])
        name = "tickets" if pruning == "LTH" else "random masks"
        for what, column in (("not retrained", "after_prune"), ("retrained", "retrained")):
            lines.append([f"{name}, {way}, {what}", *(_accuracy(row, column) for row in found)])
    return words.table(["rounds x epochs", *(f"{rounds} x {epochs}" for rounds, epochs in splits)], lines)


def _row(rows: list[Row], split: tuple[str, str], pruning: str, way: str) -> Row:
    (found,) = (
        row
        for row in rows
        if (row["rounds"], row["epochs"]) == split and row["pruning"] == pruning and row["way"] == way
    )
    return found


def _accuracy(row: Row, column: str) -> str:
    return plus_minus(float(row[f"accuracy_{column}"]), float(row[f"accuracy_{column}_half"]))
