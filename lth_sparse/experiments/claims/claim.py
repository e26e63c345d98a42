"""What a published claim is here: the runs that test it, at which sizes, and the figures that decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lth_sparse.storage import instability
from lth_sparse.storage.record import Round

POINTS, PERCENT, STEPS = "points", "%", "steps"
"""Units: differences of accuracies, accuracies, and steps of a training. The first two are fractions in a record."""


class Played(Protocol):
    """The runs of a claim, each on the same seeds."""

    def rounds(self, run: str) -> Sequence[Sequence[Round]]:
        """The rounds of `run`, seed by seed."""
        ...

    def barriers(self, run: str) -> Sequence[Sequence[instability.Barrier]]:
        """The rows of its `instability.csv`, seed by seed."""
        ...


class Figure(Protocol):
    """A number that `run` gives for each seed, and the fraction of the weights that it is of."""

    @property
    def run(self) -> str: ...

    def of(self, played: Played) -> tuple[list[float], float]: ...


@dataclass(frozen=True)
class Column:
    """`column` of the `rounds.csv` of `run`, in the round whose density is the nearest to `density`."""

    run: str
    density: float
    column: str = "accuracy_retrained"

    def of(self, played: Played) -> tuple[list[float], float]:
        """A number a seed; the mean density."""
        chosen = [min(rounds, key=lambda row: abs(row.density - self.density)) for rounds in played.rounds(self.run)]
        return [getattr(row, self.column) for row in chosen], sum(row.density for row in chosen) / len(chosen)


@dataclass(frozen=True)
class Barrier:
    """The error barrier of `run`, of the network whose density is the nearest to `density`, copied at the `number`-th
    of the steps at which it was copied (-1: the last)."""

    run: str
    density: float
    number: int

    def of(self, played: Played) -> tuple[list[float], float]:
        """A number a seed; the mean density."""
        chosen = []
        for rows in played.barriers(self.run):
            nearest = min((row.density for row in rows), key=lambda density: abs(density - self.density))
            copied = sorted((row for row in rows if row.density == nearest), key=lambda row: row.step)
            chosen.append(copied[self.number])
        return [row.barrier for row in chosen], sum(row.density for row in chosen) / len(chosen)


@dataclass(frozen=True)
class Statement:
    """`of`, less `less` where there is one, is above `above` (or, where that is None, below `below`).

    `says`: the same in words. `published`: the figure of the source, in words. `at_full_size`: whether a smaller size
    says nothing about it, because it is about a level, or about networks trained to the end. `unit`: of its figures.
    """

    says: str
    published: str
    of: Figure
    less: Figure | None = None
    above: float | None = 0.0
    below: float = 0.0
    at_full_size: bool = False
    unit: str = POINTS


@dataclass(frozen=True)
class Size:
    """`settings`, over those of every run of a claim; `runs`, over these for one of them; the seeds of each."""

    name: str
    seeds: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Transfer:
    """The ticket of `run` nearest to `density`, trained by these settings in its place, seed by seed."""

    run: str
    density: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """`runs`: a name each -> settings; `transfers`: what becomes of their tickets. `sizes`: the published one first,
    then smaller ones, the largest first."""

    name: str
    source: str
    runs: Mapping[str, Mapping[str, Any]]
    sizes: Sequence[Size]
    statements: Sequence[Statement]
    transfers: Mapping[str, Transfer] = field(default_factory=dict)
