"""A pruned network that infers: ours, dense PyTorch and every other engine that is installed, in turn."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import lth_sparse as lth
from bench.cases.engines import EngineCase
from bench.sides.engines import ENGINES, Network
from lth_sparse.latency import calls

OURS, LAYERS, DENSE = "lth_sparse", "lth_sparse, layer by layer", "PyTorch"
MOST_OFF = 1e-5
SECONDS = 60.0
BEFORE = 1
"""Calls of a side at each turn that do not count: threads of the last side may be spinning still, and the caches are
its."""


def measure(case: EngineCase, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """A row a side, JSON-ready: its calls, how far it is off, and its median over ours with what is to be reached.

    Raises AssertionError when a side does not compute the network.
    """
    x = case.inputs()
    networks = sides(case, x)
    with torch.no_grad():
        expected = networks[DENSE](x)
        off = {name: calls.furthest_off(network(x), expected) for name, network in networks.items()}
    for name, value in off.items():
        most = ENGINES[name].off if name in ENGINES else MOST_OFF
        assert value <= most, f"{case}, {name}: {value:.1e} off, over the largest output"
    found = calls.in_turn(networks, x, seconds, BEFORE)
    ours = next(each for each in found if each.name == OURS).percentile(50)
    rows = []
    for each in found:
        goal = case.goals.get(each.name)
        over = each.percentile(50) / ours
        rows.append(
            {"case": str(case), "network": case.network, "batch": case.batch, "sparsity": case.sparsity}
            | {"even": case.even, **each.to_json(), "furthest_off": off[each.name], "over_ours": over}
            | {"must": goal and goal.must, "aim": goal and goal.aim, "verdict": goal.verdict(over) if goal else ""}
        )
    return rows


def sides(case: EngineCase, x: Tensor) -> dict[str, Network]:
    """By name, each with weights of its own."""
    model, masks = case.pruned()
    ours = lth.for_inference(lth.sparsify(copy.deepcopy(model), masks), x)
    found: dict[str, Network] = {OURS: ours, LAYERS: ours.network, DENSE: model}
    for name, engine in ENGINES.items():
        if not engine.missing() and (x.dim() == 4 or not engine.images):
            found[name] = engine.made(copy.deepcopy(model), x)
    return found
