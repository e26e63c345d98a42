"""Players that take turns in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.lottery.turns import Turns


def test_players_take_turns_and_one_may_end_first() -> None:
    order: list[str] = []

    def player(name: str, moves: int) -> Callable[[Turns], None]:
        def play(turns: Turns) -> None:
            for move in range(moves):
                order.append(f"{name}{move}")
                assert turns.pass_on() >= 0

        return play

    Turns([player("a", 3), player("b", 1), player("c", 2)]).run()
    assert order == ["a0", "b0", "c0", "a1", "c1", "a2"]


def test_a_player_that_fails_ends_the_others() -> None:
    seen = []

    def fails(turns: Turns) -> None:
        turns.pass_on()
        raise ValueError("out of luck")

    def goes_on(turns: Turns) -> None:
        for move in range(9):
            seen.append(move)
            turns.pass_on()

    with pytest.raises(ValueError, match="out of luck"):
        Turns([fails, goes_on]).run()
    assert seen == [0]
