"""Which kernels a lottery's layers were computed by, by the names that are in its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bench.page import words
from bench.page.charts import Line, Shares

DENSE = "dense"


def shares(milliseconds: Mapping[str, float]) -> dict[str, float]:
    """Name of a kernel -> its share of the time of all."""
    whole = sum(milliseconds.values())
    return {name: value / whole for name, value in milliseconds.items()} if whole else {}


def in_words(milliseconds: Mapping[str, float]) -> str:
    """The shares, the largest first; what is less than half a percent is left out."""
    found = sorted(shares(milliseconds).items(), key=lambda share: -share[1])
    return ", ".join(f"{name} {words.percent(share, 0)}" for name, share in found if share >= 0.005)


def of_all_rounds(found: Mapping[str, Any]) -> dict[str, float]:
    """Name of a kernel -> milliseconds of the layers in all rounds; of files older than this, nothing."""
    total: dict[str, float] = defaultdict(float)
    for row in found["rounds"]:
        for name, value in row.get("kernels", {}).items():
            total[name] += row["iterations"] * value
    return dict(total)


def chart(name: str, title: str, found: Mapping[str, Any]) -> Shares | None:
    """The share of each kernel, round by round; None where the file has none."""
    rows = [(float(row["round"]), shares(row["kernels"])) for row in found["rounds"] if row.get("kernels")]
    # Dense at the bottom; then in the order in which they come into use.
    names = dict.fromkeys([DENSE, *(name for _, each in rows for name in each)])
    used = [each for each in names if any(each in share for _, share in rows)]
    lines = tuple(
        Line.through(each, [(round, 100 * share.get(each, 0.0)) for round, share in rows], color=number)
        for number, each in enumerate(names)
        if each in used
    )
    return Shares(name, title, "round", "share of the layers' time, %", lines) if lines else None
