"""What a rule that changes a topology is given, when it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lth_sparse.nn.masks import Masks
from lth_sparse.system.errors import InputError

UPDATED_UNTIL = 0.75
"""Of a training: after that the topology stays (Evci et al. 2020, section 4)."""


@dataclass(frozen=True)
class Updates:
    """When a training that goes from step `first` to step `total` changes its topology: before each `every`-th step,
    but not before the first one, up to three quarters of `total`."""

    first: int
    every: int
    total: int

    @property
    def end(self) -> int:
        """The step after which there is none."""
        return int(UPDATED_UNTIL * self.total)

    @property
    def last(self) -> int:
        """The step of the last one."""
        return self.first + (self.end - self.first) // self.every * self.every

    def due(self, step: int) -> bool:
        """Whether there is one before this step."""
        return self.first < step <= self.end and (step - self.first) % self.every == 0

    def check(self) -> None:
        """Raises InputError where there is none."""
        if self.last <= self.first:
            raise InputError(
                f"--update-every {self.every}: a training changes its topology up to three quarters of its steps, that "
                f"is from step {self.first} to step {self.end}; expected at most {max(self.end - self.first, 1)}, or a "
                "longer training"
            )


@dataclass(frozen=True)
class Moment:
    """What a rule sees between two steps.

    `step`: the one to come. `weights`: of each layer, dense, pruned ones 0. `gradient()`: of the loss by each of these,
    pruned ones too, on the images of the step to come; it is computed when it is first asked for. `seed`: of what the
    rule leaves to chance.
    """

    step: int
    weights: Mapping[str, Tensor]
    gradient: Callable[[], Mapping[str, Tensor]]
    seed: int


class Rule(Protocol):
    """Decides which weights of a network live from one update to the next."""

    @property
    def updates(self) -> Updates:
        """When it is asked."""
        ...

    def changed(self, masks: Masks, moment: Moment) -> Masks:
        """The masks to come after `masks`."""
        ...

    def typical(self, masks: Masks, weights: Mapping[str, Tensor]) -> Masks:
        """Masks as dense as those that a training has for the most part, which begins with `masks` and `weights`."""
        ...

    def live_at_the_end(self, masks: Masks) -> dict[tuple[str, ...], int]:
        """How many weights live when the training is over that began with `masks`, by the layers that share the
        number."""
        ...
