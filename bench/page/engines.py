"""Networks beside other engines for inference: the file that `pytest bench/ -m inference_peers --results` writes."""

from __future__ import annotations

from typing import Any

from bench.contests.engines import OURS
from bench.page import words
from bench.page.section import Section


def section(name: str, found: dict[str, Any]) -> Section:
    """All of one file, whose name is `name`."""
    made = Section(f"Inference beside other engines on {words.machine(found['measured_on'])}")
    made.say(*words.source(name, found))
    made.say(
        "The median call of each engine over that of `lth.for_inference`: below 1 ours is slower. All sides in turn,",
        "in another order each time, with the same weights and as many threads; each turn begins with a call that",
        "does not count. Outputs agree with dense PyTorch's. All but DeepSparse multiply by the zeros. Uneven masks",
        "have channels that keep more than others.",
    )
    made.say(*table(found))
    goals = [row for row in found["rows"] if row["verdict"]]
    if goals:
        made.say("What was set for them:")
        lines = []
        for row in goals:
            figures = [words.ratio(row["over_ours"]), f"{row['must']:g}", f"{row['aim']:g}", row["verdict"]]
            lines.append([*_case(row), row["name"], *figures])
        titles = ["network", "batch", "pruned", "engine", "its time over ours", "floor", "aim", ""]
        made.say(*words.table(titles, lines))
    return made


def table(found: dict[str, Any]) -> list[str]:
    """A row a case: our milliseconds, 50 and 95 of a hundred calls, and each engine's time over ours."""
    rows = found["rows"]
    engines = [name for name in dict.fromkeys(row["name"] for row in rows) if name != OURS]
    cells = {(row["case"], row["name"]): words.ratio(row["over_ours"]) for row in rows}
    lines = []
    for row in rows:
        if row["name"] == OURS:
            times = [f"{row[f'p{percent}_milliseconds']:.2f}" for percent in (50, 95)]
            lines.append([*_case(row), *times, *(cells.get((row["case"], name), "") for name in engines)])
    return words.table(["network", "batch", "pruned", "ms, p50", "p95", *engines], lines)


def headline(found: dict[str, Any]) -> list[str]:
    """Beside DeepSparse, from the worst to the best of its cases; nothing where it could not be installed."""
    rows = sorted((row for row in found["rows"] if row["name"] == "DeepSparse"), key=lambda row: row["over_ours"])
    if not rows:
        return []
    worst, best = rows[0], rows[-1]
    pruned = ", ".join(words.percent(each) for each in sorted({row["sparsity"] for row in rows}))
    here = found["measured_on"]
    return [
        f"- **{words.ratio(worst['over_ours'])} to {words.ratio(best['over_ours'])} times DeepSparse's speed** "
        f"({worst['network']}, batch {worst['batch']}; {best['network']}, batch {best['batch']}), above 1 in "
        f"{sum(row['over_ours'] > 1 for row in rows)} of {len(rows)} cases: inference with {pruned} of the weights "
        f"pruned, on {here['threads']} cores of an {here['processor']} "
        "([all engines](docs/running-a-ticket.md#coming-from-deepsparse))"
    ]


def losing_table(found: dict[str, Any]) -> list[str]:
    """Where ours is slower than an engine."""
    lines = [[*_case(row), row["name"], f"{row['over_ours']:.3f}"] for row in found["rows"] if row["over_ours"] < 1]
    return words.table(["network", "batch", "pruned", "beside", "its time over ours"], lines) if lines else ["None."]


def _case(row: dict[str, Any]) -> list[str]:
    uneven = "" if row["even"] else ", unevenly"
    return [row["network"], str(row["batch"]), words.percent(row["sparsity"]) + uneven]
