"""A layer beside what others would run it by: dense PyTorch, ours and every peer that is installed, in turn, checked.

All of it three times, each once with the machine to themselves and once beside a process that spins on core 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.cases.goals import DENSE_SPARSITY
from bench.cases.layouts import layouts
from bench.cases.peers import PeerCase
from bench.contests.layers import CPU, TOLERANCE
from bench.contests.tensors import PASSES, Tensors, errors
from bench.sides.modules import dense_module, sparse_module, step
from bench.sides.peers import PEERS
from bench.sides.training_peers import Drawn
from bench.timing.busy_core import busy_core
from bench.timing.contest import Contest, Side, Times
from bench.timing.stopwatch import SETTLE, SustainedStopwatch

OURS = "cpp"
DENSE = "dense PyTorch"
REPEATS = 3
SECONDS = 1.0
"""Of the turns of a layer, each time."""


def installed(case: PeerCase) -> list[str]:
    """The names of the peers that compute the layer and can be run here."""
    return [name for name, peer in PEERS.items() if peer.has(case.spec, case.trains) and not peer.missing()]


def measure(case: PeerCase, seconds: float = SECONDS, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Rows, JSON-ready: the time of dense PyTorch and of each peer over ours, with `busy` and `repeat`.

    Raises AssertionError when a side does not compute the layer.
    """
    contest = Contest(str(case), sides(case), SustainedStopwatch(SETTLE))
    rows = []
    for repeat in range(repeats):
        for busy in (False, True):
            with busy_core() if busy else nullcontext():
                times = contest.run(seconds)
            rows += [{"busy": busy, "repeat": repeat} | row for row in rows_of(case, times)]
    return rows


def sides(case: PeerCase) -> dict[str, Side]:
    """Dense PyTorch in each layout, ours and the peers at each sparsity; all but dense are checked."""
    tensors = Tensors.random(case.spec, case.input_shape, CPU)
    found: dict[str, Side] = {}
    for layout in layouts(case.spec):
        x, weight, grad_out = tensors.laid_out(layout).masked(tensors.chances >= DENSE_SPARSITY)
        found[f"{DENSE}, {layout}"] = _called(case, dense_module(case.spec, weight), x, grad_out)
    for sparsity in case.sparsities:
        mask = tensors.chances >= sparsity
        exact = tensors.exact(case.spec, mask)
        for name in (OURS, *installed(case)):
            label = _label(name, sparsity)
            found[label], own = _side(case, name, mask, tensors)
            if own is None:
                _check(case, label, found[label], mask, exact)
            else:
                others = replace(tensors, weight=own.weight).exact(case.spec, own.mask)
                _check(case, label, found[label], own.mask, others)
    return found


def rows_of(case: PeerCase, times: Times) -> list[dict[str, Any]]:
    """Of one run of the contest."""
    dense = times.best(side for side in times.seconds if side.startswith(DENSE))
    rows = []
    for sparsity in case.sparsities:
        others = [dense, *(_label(name, sparsity) for name in installed(case))]
        rows += [asdict(times.row(_label(OURS, sparsity), other, sparsity)) for other in others]
    return rows


def _label(name: str, sparsity: float) -> str:
    return f"{name} at {sparsity:.0%}"


def _side(case: PeerCase, name: str, mask: Tensor, tensors: Tensors) -> tuple[Side, Drawn | None]:
    """By ours or a peer; with what it drew itself, if it did."""
    x, weight, grad_out = tensors.masked(mask)
    if name == OURS:
        return _called(case, sparse_module(OURS, case.spec, mask, weight), x, grad_out), None
    peer = PEERS[name]
    if case.trains:
        assert peer.trained is not None
        trained = peer.trained(case.spec, weight)
        return step(trained.module, x, grad_out), trained.drawn
    assert peer.inferred is not None
    return peer.inferred(case.spec, x, weight), None


def _called(case: PeerCase, layer: nn.Module, x: Tensor, grad_out: Tensor) -> Side:
    if case.trains:
        return step(layer, x, grad_out)

    def forward() -> Tensor:
        with torch.no_grad():
            output: Tensor = layer(x)
        return output

    return {"forward": forward}


def _check(case: PeerCase, who: str, side: Side, mask: Tensor, exact: Mapping[str, Tensor]) -> None:
    (call,) = side.values()
    results = call() if case.trains else (call(),)
    named = {name: _live(result) for name, result in zip(PASSES, results, strict=False)}
    errors(f"{case}, {who}", named, exact, mask, TOLERANCE["cpu"])


def _live(result: Tensor) -> Tensor:
    """The gradient of live weights from that of a parameter of another form."""
    values = result.values() if result.layout == torch.sparse_csr else result
    # SparseLab keeps room for more behind each row, whose gradient stays 0.
    return values[values != 0] if values.dim() == 1 else values
