"""Several long computations in one process that take turns, so that a busy machine favours neither."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence


class Turns:
    """Each player runs in a thread of its own, and only one of them at a time: what they share they need not guard.

    A player calls `pass_on` where another may go on. It comes back when it is this one's turn again.
    """

    def __init__(self, players: Sequence[Callable[[Turns], None]]) -> None:
        self._threads = [threading.Thread(target=self._play, args=(index,)) for index in range(len(players))]
        self._players = players
        self._batons = [threading.Semaphore(0) for _ in players]
        self._playing = list(range(len(players)))
        self._began = 0.0
        self._turn = 0
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Until all have ended. Raises what the first that failed has raised; the others are not played on then."""
        for thread in self._threads:
            thread.start()
        self._hand_to(0)
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def pass_on(self) -> float:
        """Lets the next one play; gives the seconds that this player's turn took."""
        took = time.perf_counter() - self._began
        index = self._turn
        following = self._playing[(self._playing.index(index) + 1) % len(self._playing)]
        self._hand_to(following)
        self._wait(index)
        return took

    def _hand_to(self, index: int) -> None:
        self._turn, self._began = index, time.perf_counter()
        self._batons[index].release()

    def _wait(self, index: int) -> None:
        self._batons[index].acquire()
        if self._failure is not None:
            raise _Stopped

    def _play(self, index: int) -> None:
        try:
            self._wait(index)
            self._players[index](self)
        except _Stopped:
            pass
        except BaseException as error:
            self._failure = error
        following = self._playing[(self._playing.index(index) + 1) % len(self._playing)]
        self._playing.remove(index)
        if self._playing:
            self._hand_to(following)


class _Stopped(Exception):
    """Another player has failed."""
