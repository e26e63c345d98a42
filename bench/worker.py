"""Measurements that need a process of their own: `python -m bench.worker layer NAME` or `memory NETWORK BACKEND`.

What was found is printed as one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.cases.layers import LAYERS
from bench.cases.networks import NETWORKS
from bench.contests import layers
from bench.contests.memory import peak_memory
from bench.suite import selection
from bench.timing import ceilings
from bench.timing.operation import Operation
from bench.timing.row import Findings, Row
from lth_sparse.system import allocator

AVX2 = {
    "LTH_SPARSE_CPU": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""The environment that limits both sides to AVX2; it is read when torch is loaded."""


def call(*arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run this module in a new process. Raises CalledProcessError when it fails; its errors are shown."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.worker", *arguments],
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def findings_of_layer(name: str) -> Findings:
    """Of the layer called `name`, with both sides limited to AVX2, and the ceilings too."""
    found = call("layer", name, environment=AVX2)
    operations = [Operation(**operation) for operation in found["operations"]]
    return Findings([Row(**row) for row in found["rows"]], found["sides"], operations)


def main() -> None:
    """The worker's side."""
    allocator.keep_freed_memory()
    verb, name, *rest = sys.argv[1:]
    found: Any
    if verb == "layer":
        (layer,) = [layer for layer in LAYERS if layer.name == name]
        timed = layers.measure(layer, layers.CPU, tuple(layer.goals), selection.backends(layers.CPU))
        found = dataclasses.asdict(layers.findings(timed, ceilings.measure(layers.CPU)))
    else:
        (network,) = [network for network in NETWORKS if str(network) == name]
        found = peak_memory(network, *rest)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
