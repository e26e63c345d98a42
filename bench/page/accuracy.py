"""One lottery with and without Winograd's algorithm: the files that `python -m bench.accuracy` writes."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from bench.page import words
from bench.page.section import Section

Rows = list[dict[str, Any]]


def section(name: str, found: dict[str, Any]) -> Section:
    """All of one file, whose name is `name`."""
    rows: Rows = found["rounds"]
    seeds = sorted({row["seed"] for row in rows})
    made = Section(f"Accuracy with and without Winograd's algorithm, {found['config']['model']}")
    made.say(*words.source(name, found))
    made.say(
        f"One lottery on {len(seeds)} seeds by `cpp`, the same but for rounding. Test accuracy in percent: mean and,",
        "behind +-, standard deviation over the seeds; then those of the differences, with less without, seed by seed.",
        "The last column is the largest difference of logits from masked dense PyTorch in float64, over the largest",
        "logit.",
    )
    lines = []
    for number in sorted({row["round"] for row in rows}):
        sides = {setting: _of(rows, number, setting) for setting in ("off", "4x4")}
        accuracies = {setting: [100 * row["accuracy"] for row in side] for setting, side in sides.items()}
        differences = [one - other for one, other in zip(accuracies["4x4"], accuracies["off"], strict=True)]
        lines.append(
            [
                words.percent(sides["off"][0]["density"]),
                *(_spread(accuracies[setting]) for setting in ("off", "4x4")),
                _spread(differences),
                " / ".join(f"{max(row['logit_error'] for row in sides[setting]):.1e}" for setting in ("off", "4x4")),
            ]
        )
    titles = ["weights left", "without", "with", "difference", "error of logits, without / with"]
    made.say(*words.table(titles, lines))
    return made


def _of(rows: Rows, number: int, setting: str) -> Rows:
    """The rows of a round, seed by seed."""
    return sorted(
        (row for row in rows if (row["round"], row["winograd"]) == (number, setting)), key=lambda row: int(row["seed"])
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f} +- {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
