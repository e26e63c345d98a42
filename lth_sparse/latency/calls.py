"""Calls of a network, timed one by one beside another's."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lth_sparse.inference.module import relative_error

WARM_UP = 0.2
"""Of the seconds that are given, before anything counts."""
FEWEST = 5
"""Calls that count of each, however long they take."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Calls:
    """How long each took, in seconds, and how many images one has."""

    name: str
    images: int
    seconds: Sequence[float]

    def percentile(self, percent: int) -> float:
        """Milliseconds that so many of a hundred calls do not exceed."""
        if len(self.seconds) == 1:
            return 1000 * self.seconds[0]
        return 1000 * statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]

    @property
    def images_a_second(self) -> float:
        """One call after the other."""
        return self.images * len(self.seconds) / sum(self.seconds)

    def to_json(self) -> dict[str, Any]:
        """A row."""
        of_calls = {f"p{percent}_milliseconds": self.percentile(percent) for percent in PERCENTILES}
        return {"name": self.name, "calls": len(self.seconds), **of_calls, "images_a_second": self.images_a_second}


def in_turn(networks: Mapping[str, Callable[[Tensor], Any]], x: Tensor, seconds: float, before: int = 0) -> list[Calls]:
    """Each of `networks` on `x`, in turn, for so many seconds in all: what else the machine does favours none.

    The order is another one each time. `before`: calls at each turn that do not count.
    """
    order, taken = random.Random(0), {name: list[float]() for name in networks}
    with torch.no_grad():
        for share in (WARM_UP, 1 - WARM_UP):
            began, rounds = time.perf_counter(), 0
            taken = {name: [] for name in networks}
            while rounds < FEWEST or time.perf_counter() - began < share * seconds:
                rounds += 1
                for name in order.sample(list(networks), len(networks)):
                    for _ in range(before):
                        networks[name](x)
                    started = time.perf_counter()
                    networks[name](x)
                    taken[name].append(time.perf_counter() - started)
    return [Calls(name, len(x), each) for name, each in taken.items()]


def furthest_off(ours: Any, theirs: Any) -> float:
    """The largest difference of any output, over the largest of them; infinite where one is not finite alone."""
    worst = 0.0
    for given, expected in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        if not isinstance(expected, Tensor) or expected.numel() == 0:
            continue
        off = relative_error(given, expected)
        worst = max(worst, math.inf if math.isnan(off) else off)
    return worst
