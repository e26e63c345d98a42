"""Operators called directly, with arguments that do not fit together: an exception, never memory that is not theirs.

`make fuzz` and `make sanitize` run this under AddressSanitizer, which sees every access of the kernels.
"""

import os

import pytest
import torch
from hypothesis import given

from lth_sparse.backends import registry
from tests.hostile.arguments import calls
from tests.hostile.effort import examples
from tests.memory import peak_memory

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)


def call(name, arguments):
    namespace, operator = name.split()[0].split("::")
    return getattr(getattr(torch.ops, namespace), operator)(*arguments)


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_together_is_an_exception():
    outcomes = {"taken": 0, "refused": 0}

    @examples(1200)
    @given(calls())
    def attack(drawn):
        name, arguments, sound = drawn
        try:
            call(name, arguments)
            outcomes["taken"] += 1
        except Exception as error:
            outcomes["refused"] += 1
            if sound or isinstance(error, MemoryError):
                raise

    with peak_memory() as taken:
        attack()
    assert min(outcomes.values()) > sum(outcomes.values()) / 10, outcomes
    # AddressSanitizer keeps what was freed for a while.
    assert taken.mebibytes < (2000 if "LTH_SPARSE_SANITIZED" in os.environ else 400)
