"""ResNet-50 at scale, on paper: `python -m bench.scale`, two minutes; what it finds goes into a file.

Bytes of training by density, all-reduce by number of GPUs, what a sweep of many runs costs; each by a formula, which is
held against a network or a run of a size that fits here. Exit status 1 where one is further off than it may be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lth_sparse
from bench.scale import allreduce, memory, sweeps
from lth_sparse.nn.masks import prunable
from lth_sparse.storage import environment
from lth_sparse.storage.files import write_entries
from lth_sparse.system import home

RESULTS = Path(__file__).parents[1] / "results"
DENSITIES = (None, 1.0, 0.2, 0.1, 0.05, 0.02)
"""None is dense PyTorch."""
SIZE, BATCH = 224, 1
CHECKED = (None, 0.1)
OVERVIEWS = (100, 1000)
MOST_OFF = {"tensors": 0.001, "resident set": 0.05, "activations": 0.02, "all-reduce": 0.0, "tickets": 0.05}
"""How far the measured figure may be from the formula's, over that."""


def check(what: str, kind: str, formula: float, measured: float) -> dict[str, Any]:
    """A row: what was worked out and what was counted, in bytes."""
    off = measured / formula - 1
    return {
        "what": what, "kind": kind, "formula": round(formula), "measured": round(measured), "off": off,
        "held": abs(off) <= MOST_OFF[kind],
    }  # fmt: skip


def networks(name: str, size: int) -> list[dict[str, Any]]:
    """A row for each density."""
    rows = []
    for density in DENSITIES:
        model = memory.network(name, density)
        by_layers, saved = memory.activations(model, size, BATCH)
        gradients = allreduce.gradient_bytes(model)
        rows.append(
            {
                "density": density,
                **asdict(memory.worked_out(model)),
                "activations": by_layers,
                "activations_saved": saved,
                "allreduce": {
                    cluster.name: [allreduce.seconds(gradients, gpus, cluster) for gpus in allreduce.GPUS]
                    for cluster in allreduce.CLUSTERS
                },
            }
        )  # fmt: skip
    return rows


def checks(rows: list[dict[str, Any]], name: str, small: str, tiny: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each formula and size."""
    found = []
    for density in CHECKED:
        words = "dense" if density is None else f"{density:.0%}"
        for optimizer in memory.OPTIMIZERS:
            formula = memory.worked_out(memory.network(name, density)).by(optimizer)
            tensors, resident = memory.measured(name, density, optimizer)
            found.append(check(f"{name}, {words}, {optimizer}", "tensors", formula, tensors))
            found.append(check(f"{name}, {words}, {optimizer}", "resident set", formula, resident))
        make = partial(memory.network, small, density)
        found.append(
            check(f"{small}, {words}", "all-reduce", allreduce.gradient_bytes(make()), allreduce.counted(make))
        )
    for row in rows:
        words = "dense" if row["density"] is None else f"{row['density']:.0%}"
        found.append(check(f"{name}, {words}", "activations", row["activations"], row["activations_saved"]))
    found.append(check("a run of lenet-300-100", "tickets", tiny["tickets_by_formula"], tiny["tickets"]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file; 1 where a check fails."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the file goes")
    parser.add_argument("--network", default="resnet50", help="of torchvision (default: resnet50)")
    parser.add_argument("--image-size", type=int, default=SIZE, help=f"for the activations (default: {SIZE})")
    chosen = parser.parse_args(given)
    rows = networks(chosen.network, chosen.image_size)
    tiny = sweeps.tiny_runs()
    held = checks(rows, chosen.network, "resnet18", tiny)
    model = memory.network(chosen.network, None)
    weights = sum(each.numel() for each in prunable(model).values())
    others = sum(each.numel() for each in model.parameters()) - weights
    about = {
        "measured_on": environment.describe(torch.device("cpu"), lth_sparse.__version__),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": home.command("python -m bench.scale", given),
        "network": chosen.network,
        "weights": weights,
        "image_size": chosen.image_size,
        "step_seconds": allreduce.BATCH / allreduce.IMAGES_A_SECOND,
        "gpus": allreduce.GPUS,
        "most_off": MOST_OFF,
        "sweep": {
            "runs": sweeps.RUNS,
            "rounds": sweeps.ROUNDS,
            "lottery_bytes": sweeps.lottery_bytes(weights, others),
            "process_seconds": sweeps.processes(),
            "tiny": tiny,
        },
    }
    overviews = [{"runs": runs, **sweeps.overview_seconds(runs)} for runs in OVERVIEWS]
    clusters = [asdict(cluster) for cluster in allreduce.CLUSTERS]
    path = chosen.results / f"scale-{chosen.network}.json"
    write_entries(path, about, {"clusters": clusters, "densities": rows, "checks": held, "overviews": overviews})
    missed = [row for row in held if not row["held"]]
    for row in missed:
        print(f"MISSED: {row['kind']} of {row['what']}: {row['measured']} bytes, by the formula {row['formula']}")
    print(f"{len(held)} checks, {len(missed)} missed; written to {path}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
