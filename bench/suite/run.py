"""One run of the suite: what was selected, what the machine can do, what was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.suite.selection import Place
from bench.timing import ceilings
from bench.timing.ceilings import Ceilings
from bench.timing.row import Findings


class Suite:
    """`lines`: further ones to be printed. `measured`: the ceilings that were asked for, by the type of the device.
    `peers`, `engines`: rows as those of bench/contests make them."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self._items = items
        self._timed: dict[Place, Findings | Exception] = {}
        self.measured: dict[str, Ceilings] = {}
        self.found = Findings()
        self.lines: list[str] = []
        self.peers: list[dict[str, Any]] = []
        self.engines: list[dict[str, Any]] = []

    def selected(self, place: Place) -> list[dict[str, Any]]:
        """The arguments of the cases of `place` that are to be run."""
        every = [item.callspec.params for item in self._items if hasattr(item, "callspec")]
        return [arguments for arguments in every if arguments.get("place") is place]

    def once(self, place: Place, measure: Callable[[], Findings]) -> Findings:
        """What `measure` finds at `place`, asked for by each of its cases. Raises what it raised, each time."""
        if place not in self._timed:
            try:
                self._timed[place] = self.add(measure())
            except Exception as failure:
                self._timed[place] = failure
        if isinstance(found := self._timed[place], Exception):
            raise found
        return found

    def ceilings(self, device: torch.device) -> Ceilings:
        """Measured when first asked for."""
        if device.type not in self.measured:
            self.measured[device.type] = ceilings.measure(device)
        return self.measured[device.type]

    def add(self, more: Findings) -> Findings:
        """Keeps them, and gives them back. Fails when a ratio is none; what it has to reach depends on the machine."""
        for row in more.rows:
            assert 0 < row.ratio < math.inf, row
        self.found.rows += more.rows
        self.found.sides += more.sides
        self.found.operations += more.operations
        return more
