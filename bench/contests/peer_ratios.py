"""What the rows of bench/contests/peers.py come to: a ratio for each case, sparsity and side, quiet and busy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cases.goals import Goal
from bench.cases.peers import PEER_CASES, PeerCase
from bench.contests.peers import DENSE

CASES = {str(case): case for case in PEER_CASES}


@dataclass(frozen=True)
class Ratio:
    """The time of the side called `name` over ours: median over median, of these the median of all repeats."""

    case: str
    sparsity: float
    name: str
    busy: bool
    value: float


@dataclass(frozen=True)
class Lowest:
    """Of the cases with one goal: where the fastest peer came closest to ours, or passed it."""

    cases: tuple[PeerCase, ...]
    goal: Goal
    ratio: Ratio

    @property
    def verdict(self) -> str:
        """What became of the goal."""
        return self.goal.verdict(self.ratio.value)


def of(rows: Sequence[Mapping[str, Any]]) -> list[Ratio]:
    """In the order of the rows."""
    found: dict[tuple[str, float, str, bool], list[float]] = {}
    for row in rows:
        name = DENSE if row["against"].startswith(DENSE) else row["against"].rpartition(" at ")[0]
        found.setdefault((row["case"], row["sparsity"], name, row["busy"]), []).append(row["by_median"])
    return [Ratio(*key, statistics.median(values)) for key, values in found.items()]


def lowest(ratios: Sequence[Ratio]) -> list[Lowest]:
    """For each goal, quiet ones first. Dense PyTorch is no peer."""
    found = []
    for busy in (False, True):
        by_goal: dict[Goal, list[PeerCase]] = {}
        for name in dict.fromkeys(ratio.case for ratio in ratios):
            case = CASES[name]
            if goal := case.busy if busy else case.quiet:
                by_goal.setdefault(goal, []).append(case)
        for goal, cases in by_goal.items():
            names = set(map(str, cases))
            peers = [each for each in ratios if each.case in names and each.busy == busy and each.name != DENSE]
            if peers:
                found.append(Lowest(tuple(cases), goal, min(peers, key=lambda each: each.value)))
    return found
