"""How often the state of a training, or the overview of a sweep, is written: both take long beside short work."""

from __future__ import annotations

import time
from collections.abc import Callable

LARGEST_SHARE = 0.02
"""Of the time of a training, what writing its states may take."""


class Saving:
    """Writes a state by `save`, by what the last one took, no more often than `LARGEST_SHARE` allows."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._next = 0.0

    def may(self) -> None:
        """Here is a place to go on from; the first one is always written."""
        if time.perf_counter() >= self._next:
            self.must()

    def must(self) -> None:
        """Here is one that has to be written."""
        began = time.perf_counter()
        self._save()
        saved = time.perf_counter()
        self._next = saved + (saved - began) / LARGEST_SHARE
