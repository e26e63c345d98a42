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
_LOW = (0.2, 0.4)
NETWORKS = [
    Network("conv4", _CIFAR10, 10, goals((0, 2.3, 2.8), (0.9, 3.7, 5), (0.98, 6, 8)), _LOW, 30),
    Network("vgg16", _CIFAR10, 10, goals((0, 2.2, 2.8), (0.9, 4.5, 6), (0.98, 9, 11)), _LOW, 50),
    Network("resnet20", _CIFAR10, 10, goals((0, 1.6, 2.3), (0.9, 2.1, 3), (0.98, 3, 4)), _LOW, 20),
]
