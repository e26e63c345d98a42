"""Every row in which ours is slower, larger or short of what was set for it."""

from __future__ import annotations

from typing import Any

from bench.page import engines, gpu, peers, words
from bench.page.section import Section
from bench.page.sources import Sources


def section(sources: Sources) -> Section:
    """All of them, of every file."""
    made = Section("Losing rows")
    made.say("Below 1 is slower than dense PyTorch in its better layout, or larger.")
    for name, found in sources.cpu.items():
        made.say(f"`bench/results/{name}`: slower or larger")
        made.say(*slower_table(found))
        made.say(f"`bench/results/{name}`: short of the floor that was set (`bench/cases/`)")
        made.say(*missed_table(found))
    for name, found in sources.peers.items():
        made.say(f"`bench/results/{name}`: slower than a peer")
        made.say(*peers.losing_table(found))
    for name, found in sources.engines.items():
        made.say(f"`bench/results/{name}`: slower than another engine, or than a way of PyTorch's")
        made.say(*engines.losing_table(found))
    for name, found in sources.gpu.items():
        made.say(f"`bench/results/{name}`: slower than dense in the same precision")
        made.say(*gpu.losing_table(found))
    return made


def slower(found: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """(case, ours, against, ratio) of each side of ours that took longer than the best dense one, and each row < 1."""
    losing = {}
    for case in dict.fromkeys(side["case"] for side in found["sides"] if "minimum" in side):
        sides = [side for side in found["sides"] if side["case"] == case]
        dense = [side for side in sides if side["side"].startswith(("dense", "masked dense"))]
        ours = [side for side in sides if side["side"].startswith(("cpp at ", "auto at "))]
        best = min(dense, key=lambda side: side["minimum"])
        for side in ours:
            if side["minimum"] > best["minimum"] and not side["side"].startswith("auto at 0%"):
                losing[case, side["side"]] = (best["side"], best["minimum"] / side["minimum"])
    for row in found["rows"]:
        lower = min(row["by_minimum"], row["by_median"])
        if lower < 1:
            losing[row["case"], row["ours"]] = (row["against"], lower)
    return [(case, ours, against, value) for (case, ours), (against, value) in losing.items()]


def slower_table(found: dict[str, Any]) -> list[str]:
    """What is slower, or larger."""
    lines = [[words.layer(case), ours, against, f"{value:.3f}"] for case, ours, against, value in slower(found)]
    return words.table(["case", "ours", "against", "ratio"], lines) if lines else ["None."]


def missed_table(found: dict[str, Any]) -> list[str]:
    """What is short of its floor."""
    lines = [
        [
            words.layer(row["case"]),
            row["ours"],
            f"{words.ratio(row['by_minimum'])} ({words.ratio(row['by_median'])})",
            f"{row['must']:g}",
        ]
        for row in found["rows"]
        if row["verdict"] == "MISSED"
    ]
    return words.table(["case", "ours", "ratio (of medians)", "floor"], lines) if lines else ["None."]
