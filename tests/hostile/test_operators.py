"""Operators called directly, with arguments that do not fit together: an exception, never memory that is not theirs.

`make fuzz` and `make sanitize` run this under AddressSanitizer, which sees every access of the kernels.
"""

import os
from collections import Counter

import pytest
import torch
from hypothesis import given

from lth_sparse.backends import registry
from tests.hostile.arguments import calls
from tests.hostile.effort import examples, report
from tests.memory import peak_memory

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)


def registered():
    """The operators that run on a CPU and are given anything, but for the planted faults of `make sanitize`."""
    names = [
        name for name in torch._C._dispatch_get_all_op_names() if name.startswith(("lth_sparse::", "lth_sparse_cpu::"))
    ]
    return {name for name in names if torch._C._get_schema(name, "").arguments and "::planted_" not in name}


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_together_is_an_exception(capfd):
    taken, refused = Counter(), Counter()

    @examples(150)
    @given(calls())
    def attack(drawn):
        for call in drawn:
            try:
                call.function(*call.arguments)
                taken[call.operator] += 1
            except Exception as error:
                refused[call.operator] += 1
                if call.sound or isinstance(error, MemoryError):
                    raise

    with peak_memory() as memory:
        attack()
    report(capfd, f"{taken.total()} calls of operators computed something, {refused.total()} were refused")
    assert registered() <= (taken + refused).keys()
    assert min(taken.total(), refused.total()) > (taken + refused).total() / 10
    # AddressSanitizer keeps what was freed for a while.
    assert memory.mebibytes < (2000 if "LTH_SPARSE_SANITIZED" in os.environ else 400)
