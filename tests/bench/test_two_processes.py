"""Two lotteries at once beside one after the other: `python -m bench.two_processes`."""

import pytest

from bench import two_processes

SHORT = ("--dataset", "digits", "--device", "cpu", "--rounds", "1", "--iterations", "5", "--controls", "none")


def test_lotteries_are_played(monkeypatch):
    monkeypatch.setattr(two_processes, "LOTTERY", SHORT)
    assert two_processes.seconds(at_once=True) > 0


def test_who_takes_longer_than_may_be_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(two_processes, "seconds", lambda at_once: 2.4 if at_once else 2.0)
    assert two_processes.main() == 1
    assert capsys.readouterr().out.endswith("1.20 times as long, must 1.1  MISSED\n")


def test_a_lottery_that_fails_is_not_timed(monkeypatch):
    monkeypatch.setattr(two_processes, "LOTTERY", ("--dataset", "no such data"))
    with pytest.raises(RuntimeError, match=r"a lottery failed: .*no such data"):
        two_processes.seconds(at_once=False)
