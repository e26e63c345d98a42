"""Programs of several processes, which cost seconds to start: a file's scenarios share one pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn

WORLD = 2

Scenario = Callable[[int], Any]
"""Called with the rank in every process, by gloo's group of them; gives what torch.save can hold."""


def run(scenarios: Mapping[str, Scenario], directory: Path) -> list[dict[str, Any]]:
    """For each rank, what the scenarios gave there, by name."""
    multiprocessing.spawn(_process, (dict(scenarios), directory), nprocs=WORLD)
    return [torch.load(directory / f"{rank}.pt") for rank in range(WORLD)]


def _process(rank: int, scenarios: dict[str, Scenario], directory: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=WORLD)
    results = {name: scenario(rank) for name, scenario in scenarios.items()}
    torch.save(results, directory / f"{rank}.pt")
    distributed.destroy_process_group()


def network() -> nn.Sequential:
    """Without a norm, whose statistics are those of a process's own part of a batch."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 5),
    )


def part(batch: Tensor, rank: int) -> Tensor:
    """What this rank gets of a batch."""
    return batch.chunk(WORLD)[rank]
