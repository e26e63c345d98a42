"""Which plots a report shows, with their captions, or the reason why one is left out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from lth_sparse.report import instability_plots, matrices, plots
from lth_sparse.report.words import TIMES, dataset_name, known, subject, weights_left
from lth_sparse.storage.record import Record

NOTHING_PRUNED = "Left out: no pruned round has finished yet."


@dataclass(frozen=True)
class Picture:
    """One plot of the report. Where there was nothing to draw, `png` is None and `caption` says why."""

    name: str
    title: str
    alt: str
    caption: str
    png: bytes | None


def pictures(info: dict[str, Any], record: Record) -> list[Picture]:
    """Every plot of the report, drawn or explained, in reading order."""
    return [
        _accuracy(info, record),
        _loss(info, record),
        _layers(info, record),
        _early_stop(info, record),
        _confusion(info, record),
        _speedup(info, record),
        *(_instability(info, record) if record.barriers else []),
    ]


def most_confused(counts: list[list[int]], classes: list[str], most: int = 3) -> list[str]:
    """The most frequent mistakes in a confusion matrix, in words, most frequent first."""
    mistakes = [
        (-count, truth, taken)
        for truth, row in enumerate(counts)
        for taken, count in enumerate(row)
        if count and truth != taken
    ]
    return [
        f"{classes[truth]} taken for {classes[taken]} ({-count}{TIMES})"
        for count, truth, taken in sorted(mistakes)[:most]
    ]


def _accuracy(info: dict[str, Any], record: Record) -> Picture:
    missing = NOTHING_PRUNED if len(record.rounds) < 2 else ""
    return _picture(
        name="accuracy",
        title="Accuracy against sparsity",
        alt=f"Test accuracy on {dataset_name(info)} against weights left, for the tickets, their "
        "controls and the pruned networks that were not retrained. The table of rounds has the numbers.",
        caption="Test accuracy as weights are pruned away, from left to right. Above: after training; the "
        "ring is the chosen ticket, the dotted line the dense network. Below: the same tickets beside the "
        "pruned networks before any retraining.",
        missing=missing,
        figure=None if missing else plots.accuracy(record.rounds, record.best_ticket(), subject(info)),
    )


def _loss(info: dict[str, Any], record: Record) -> Picture:
    curves = [point for point in record.curves if point.arm == "ticket"]
    return _picture(
        name="loss",
        title="Loss curves",
        alt=f"Validation loss on {dataset_name(info)} against the iteration, one line for each round. "
        "The table of rounds has the iteration of each minimum.",
        caption="Validation loss while each round trains; round 0 is the dense network. "
        "The dot on a line is its minimum, where early stopping would stop.",
        missing="" if curves else "Left out: no evaluation has been recorded yet.",
        figure=plots.loss_curves(curves, subject(info)) if curves else None,
    )


def _layers(info: dict[str, Any], record: Record) -> Picture:
    figure = matrices.layers(record.layers, subject(info)) if record.layers else None
    return _picture(
        name="layers",
        title="Sparsity per layer",
        alt="Percentage of weights left in each layer after each round's pruning.",
        caption="Weights left in each layer, in percent, after each round's pruning. "
        "Layers in the order of the network; colours on a log scale.",
        missing="" if record.layers else "Left out: no layer has been counted yet.",
        figure=figure,
    )


def _early_stop(info: dict[str, Any], record: Record) -> Picture:
    missing = ""
    if len(record.rounds) < 2:
        missing = NOTHING_PRUNED
    elif not any(known(row.early_stop_iteration) for row in record.rounds):
        missing = "Left out: no validation loss was followed."
    return _picture(
        name="early-stop",
        title="Early-stop iteration",
        alt="Iteration of minimum validation loss against weights left. The table of rounds has the numbers.",
        caption="Iteration of minimum validation loss. Below the dotted line, a ticket learns faster than "
        "the dense network.",
        missing=missing,
        figure=None if missing else plots.early_stop(record.rounds, subject(info)),
    )


def _confusion(info: dict[str, Any], record: Record) -> Picture:
    counts: list[list[int]] = []
    caption = ""
    if record.rounds:
        best = record.best_ticket()
        position = record.rounds.index(best)
        counts = record.confusion[position] if position < len(record.confusion) else []
        who = f"the chosen ticket ({weights_left(best.density)} of the weights)" if best.round else "the dense network"
        caption = f"Test images by true class (row) and the class that {who} gives them (column)."
    classes = [str(name) for name in info.get("dataset", {}).get("classes") or []]
    if len(classes) != len(counts):
        classes = [str(number) for number in range(len(counts))]
    if len(counts) > matrices.MOST_NAMED_CLASSES:
        caption += " The classes are numbered from 0 in the order of the list further down."
    mistakes = most_confused(counts, classes)
    if mistakes:
        caption += f" Most frequent mistakes: {'; '.join(mistakes)}."
    return _picture(
        name="confusion",
        title="Confusion matrix",
        alt=f"Confusion matrix on the test set of {dataset_name(info)}. The caption names the most frequent mistakes.",
        caption=caption,
        missing="" if counts else "Left out: no confusion matrix has been recorded yet.",
        figure=matrices.confusion(counts, classes, subject(info)) if counts else None,
    )


def _speedup(info: dict[str, Any], record: Record) -> Picture:
    missing = ""
    if len(record.rounds) < 2:
        missing = NOTHING_PRUNED
    elif not any(known(row.speedup) for row in record.rounds[1:]):
        missing = "Left out: no training step was timed."
    return _picture(
        name="speedup",
        title="Speedup against sparsity",
        alt="Measured speedup of a training step against weights left. The table of rounds has the numbers.",
        caption="Time of a training step in masked dense PyTorch over the time of the same step with this "
        "run's backend, measured side by side. Above the dotted line at 1.0, pruned weights save time.",
        missing=missing,
        figure=None if missing else plots.speedup(record.rounds, subject(info)),
    )


def _instability(info: dict[str, Any], record: Record) -> list[Picture]:
    return [
        _picture(
            name="instability",
            title="Instability",
            alt="Error barrier between two copies, against the step of the dense network that they start from, and "
            "against weights left for tickets. The table of instability has the numbers.",
            caption="How far the test error rises on the line between two copies trained in different orders of the "
            "images. Under the dotted line, at 2 points, a network is stable.",
            missing="",
            figure=instability_plots.barriers(record.barriers, [0.0] * len(record.barriers), subject(info)),
        ),
        _picture(
            name="instability-paths",
            title="Error between two copies",
            alt="Test error at 30 points on the line between two copies, one curve for each pair.",
            caption="Test error on the line from the end of one copy (0) to that of the other (1): above, of the dense "
            "network, by the step that they start from; below, of tickets.",
            missing="",
            figure=instability_plots.paths(record.paths, record.barriers, subject(info)),
        ),
    ]


def _picture(name: str, title: str, alt: str, caption: str, missing: str, figure: Figure | None) -> Picture:
    if figure is None:
        return Picture(name, title, alt, missing, None)
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as a box; the caption has it in words.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        return Picture(name, title, alt, caption, plots.png(figure))
