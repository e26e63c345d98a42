"""Where the time of a network for inference goes, operation by operation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lth_sparse.inference.segments import Segment


@dataclass(frozen=True)
class Operation:
    """`kernel`: what computes it. `milliseconds`: the median over runs. `gigaflops`: floating-point operations of its
    live weights alone, two for each, over that time; None where it has no weights."""

    name: str
    kernel: str
    milliseconds: float
    gigaflops: float | None

    def to_json(self) -> dict[str, Any]:
        """A row."""
        return asdict(self)


class _Timed(fx.Interpreter):
    """Runs a network node by node, and keeps the seconds of each."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.found: dict[tuple[str, str], tuple[float, int]] = {}

    def run_node(self, node: fx.Node) -> Any:
        """By its own times, where the engine computes it."""
        module = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Segment):
            inputs = [self.env[each] for each in node.all_input_nodes]
            for name, seconds in module.engine.times(inputs).items():
                self.found[name, "engine"] = seconds, module.engine.flops.get(name, 0) * len(inputs[0])
            return super().run_node(node)
        began = time.perf_counter()
        result = super().run_node(node)
        if node.op not in ("placeholder", "get_attr", "output"):
            kernel = type(module).__name__ if module is not None else "PyTorch"
            self.found[node.name, kernel] = time.perf_counter() - began, 0
        return result


def of_network(network: nn.Module, x: Tensor, seconds: float) -> list[Operation]:
    """The operations of a network that could be followed, in their order; none where it could not."""
    if not isinstance(network, fx.GraphModule):
        return []
    runs: list[dict[tuple[str, str], tuple[float, int]]] = []
    began = time.perf_counter()
    with torch.no_grad():
        while len(runs) < 3 or time.perf_counter() - began < seconds:
            timed = _Timed(network)
            timed.run(x)
            runs.append(timed.found)
    result = []
    for (name, kernel), (_, flops) in runs[0].items():
        taken = statistics.median(run[name, kernel][0] for run in runs)
        result.append(Operation(name, kernel, 1000 * taken, flops / taken / 1e9 if flops and taken else None))
    return result


def slowest_first(operations: Sequence[Operation]) -> list[Operation]:
    """Those that take the time, before those that do not."""
    return sorted(operations, key=lambda each: -each.milliseconds)
