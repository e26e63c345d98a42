"""What lotteries of several seeds came to: the rows of `summary.csv`."""

from __future__ import annotations

from dataclasses import dataclass

BETTER, MATCHING, WORSE = "better than dense", "matching dense", "worse than dense"
STABLE, UNSTABLE = "stable", "unstable"
TOO_FEW = "too few seeds to say"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % interval, None where one seed gives none."""

    mean: float
    half: float | None
    seeds: int = 0

    @property
    def low(self) -> float:
        """Minus infinity where there is no interval."""
        return float("-inf") if self.half is None else self.mean - self.half

    @property
    def high(self) -> float:
        """Infinity where there is no interval."""
        return float("inf") if self.half is None else self.mean + self.half


@dataclass(frozen=True)
class SummaryRow:
    """One arm in one round, over `seeds` seeds. Round 0 is the dense network, its arm the ticket.

    `accuracy`: mean test accuracy, a fraction. `difference`: the ticket's accuracy less that of what it is held
    against, the mean over seeds of the differences within a seed: for the ticket that is the dense network, for a
    control the control. `..._half`: half the width of the 95 % interval of each, Student's t; empty where one seed
    gives none.
    `verdict`: what the interval of the difference says, in words. `speedup`: masked dense PyTorch's time of a training
    step over this one's, the median; of the ticket alone.
    """

    round: int
    arm: str
    seeds: int
    density: float
    accuracy: float
    accuracy_half: float | None
    difference: float | None
    difference_half: float | None
    verdict: str
    speedup: float | None


@dataclass(frozen=True)
class TrainingTime:
    """Of all `trainings` of some runs: `seconds` in their steps, and `dense_seconds`, what as many of masked dense
    PyTorch's take, by what a step of each round took beside one of the ticket's. Of those whose topology changed in
    training: `changing_seconds` in their steps, of which `repacking_seconds` and `dense_gradient_seconds`."""

    trainings: int
    seconds: float
    dense_seconds: float
    changing_seconds: float
    repacking_seconds: float
    dense_gradient_seconds: float


@dataclass(frozen=True)
class StabilityRow:
    """One pair of copies over `seeds` seeds, a row of `instability-summary.csv`: of the dense network (round 0) from
    `step`, or of the ticket of a round.

    `barrier`: the mean, a fraction of the test images, and half the width of its 95 % interval, Student's t; empty
    where one seed gives none. `verdict`: what that interval says, in words.
    """

    round: int
    step: int
    seeds: int
    density: float
    barrier: float
    barrier_half: float | None
    verdict: str


@dataclass(frozen=True)
class Transferred:
    """A ticket on a target: what they are called, the folder of its runs under that of all, and their summary."""

    source: str
    target: str
    folder: str
    rows: list[SummaryRow]


@dataclass(frozen=True)
class Swept:
    """One run of a sweep: the rows of its summary, or none and why it failed."""

    name: str
    folder: str
    rows: list[SummaryRow]
    failed: str


HOLDS, DOES_NOT, NOT_COMPARABLE = "holds", "does not hold", "not comparable at this size"


@dataclass(frozen=True)
class Judged:
    """A statement of a published claim, over `seeds` seeds, at `density`. `ours`: the mean of its figure, a fraction
    where `unit` is points or %, and half its 95 % interval, Student's t. `verdict`: what that says, in words."""

    claim: str
    statement: str
    published: str
    size: str
    seeds: int
    density: float
    unit: str
    ours: float
    ours_half: float | None
    verdict: str


@dataclass(frozen=True)
class Claimed:
    """A claim that was tested, at `size`, which has `instead` of the published settings; or why that failed."""

    name: str
    source: str
    size: str
    instead: str
    seconds: float
    judged: list[Judged]
    failed: str


@dataclass(frozen=True)
class Studied:
    """What a run of the coursework's study came to after its last round.

    `sparsity`, `rounds`, `epochs`: which one it is, the epochs of each training being the coursework's; `iterations`:
    the steps that each training had. `emulated`: whether with the coursework's mistakes. `pruning`: "LTH" or "random".
    Accuracies are fractions of the test images: `dense`, of the network before any pruning; `before`, of the trained
    network that the last round pruned; `after`, of the same weights, pruned and not retrained; `retrained`, after the
    training that follows. `validation`: of the last, on the validation images, the mean over seeds. `published`: what
    the coursework reports of this sparsity and pruning, of whichever rounds and epochs it chose.
    """

    sparsity: float
    rounds: int
    epochs: int
    iterations: int
    emulated: bool
    pruning: str
    folder: str
    dense: Estimate
    before: Estimate
    after: Estimate
    retrained: Estimate
    validation: float
    published: float | None
