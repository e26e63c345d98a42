"""Whether the sanitizers of `make sanitize` would find a fault: they find those of planted_faults.cpp."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif("LTH_SPARSE_SANITIZED" not in os.environ, reason="this is no build of make sanitize")

SETUP = "import torch; import lth_sparse.backends.cpu_operators; operators = torch.ops.lth_sparse_cpu; "
FAULTS = {
    "heap-buffer-overflow": ("print(operators.planted_read(torch.ones(64, dtype=torch.uint8), {}))", 63, 64),
    "signed integer overflow": ("print(operators.planted_increment({}))", 7, 2**63 - 1),
}


@pytest.mark.parametrize(("fault", "call", "harmless", "harmful"), [(name, *fault) for name, fault in FAULTS.items()])
def test_a_planted_fault_is_found(fault, call, harmless, harmful):
    without, planted = (
        subprocess.run([sys.executable, "-c", SETUP + call.format(given)], capture_output=True, text=True)
        for given in (harmless, harmful)
    )
    assert without.returncode == 0, without.stderr
    assert planted.returncode != 0, planted.stdout
    assert fault in planted.stderr
