"""The networks whose training steps `pytest bench/` times, with what each figure of theirs has to reach."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases.goals import Goal, goals


@dataclass(frozen=True)
class Network:
    """A registered network: whole training steps and the memory that they take.

    `goals`: of the cpp backend, by sparsity. `low`: further sparsities, at which the auto backend alone is timed, when
    the full table is asked for. `seconds`: about how long the timed part takes.
    """

    name: str
    input_shape: tuple[int, int, int, int]
    classes: int
    goals: dict[float, Goal | None]
    low: tuple[float, ...]
    seconds: float

    def __str__(self) -> str:
        return self.name


_CIFAR10 = (128, 3, 32, 32)
_LOW = (0.0, 0.2, 0.4)
NETWORKS = [
    Network("conv4", _CIFAR10, 10, goals((0.95, 2.3, 4)), _LOW, 30),
    Network("vgg16", _CIFAR10, 10, goals((0.95, 2.8, 4)), _LOW, 40),
]
