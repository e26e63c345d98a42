"""How many examples the hostile tests draw: few in `make test`, LTH_SPARSE_EXAMPLES in `make fuzz`."""

import os

from hypothesis import HealthCheck, Phase, settings

LONG = os.environ.get("LTH_SPARSE_EXAMPLES")


def examples(few: int) -> settings:
    """The same `few` at each run, or as many as asked for, others at each."""
    return settings(
        max_examples=int(LONG or few),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if LONG else [])],
    )
