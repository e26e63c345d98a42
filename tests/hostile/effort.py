"""How many examples the hostile tests draw: few in `make test`, LTH_SPARSE_EXAMPLES in `make fuzz`."""

import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

LONG = os.environ.get("LTH_SPARSE_EXAMPLES")


def examples(few: int, most: int | None = None) -> settings:
    """The same `few` at each run, or as many as asked for, at most `most`, others at each."""
    return settings(
        max_examples=min(int(LONG or few), most or sys.maxsize),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if LONG else [])],
    )


def report(capfd: pytest.CaptureFixture[str], counts: str) -> None:
    """What `make fuzz` says of a test that passed."""
    if LONG:
        with capfd.disabled():
            print(f"\n{counts}")
