"""The runs: small ones that together go through every way of pruning, training and rewinding.

| | scope | schedule | control | rewind | optimizer | augmentation | backend |
|---|---|---|---|---|---|---|---|
| quick | layerwise | geometric | random | 0 | Adam | none | auto |
| seed | layerwise | seed | random | 0 | SGD | none | cpp |
| resnet20 | global | geometric | none | 3 | SGD | crop-flip | dense |
| images | global | one-shot | none | 0 | Adam | crop | dense |

The killed run is caught in the first ticket of quick and resnet20, in the control of seed, in the dense network of
images.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A run, as its command line says it. It is killed when the state numbered `killed_at` is there.

    `choices`: the auto backend is given what it chose in a run of the base, since what it measures is never the same.
    """

    name: str
    command: str
    killed_at: int
    choices: bool = False

    def arguments(self) -> list[str]:
        """Those of `python -m lth_sparse.run`, without `--choices`. Paths are relative, so equal on both sides."""
        return [*shlex.split(self.command), "--device", "cpu", "--out", "run"]


CASES = (
    Case(
        "quick",
        "--preset quick --dataset digits --iterations 40 --evaluate-every 15 --rounds 2 --backend auto",
        killed_at=2,
        choices=True,
    ),
    Case(
        "seed",
        "--preset seed --dataset digits --model small --epochs 2 --evaluate-every 7 --rounds 2 --backend cpp",
        killed_at=4,
    ),
    Case(
        "resnet20",
        "--preset openlth/resnet20 --dataset digits --iterations 12 --evaluate-every 5 --rounds 2 "
        "--rewind-iteration 3 --seed 1 --backend dense",
        killed_at=2,
    ),
    Case(
        "images",
        "--preset paper/conv2 --dataset folder --data-dir images --image-size 12 --iterations 12 --evaluate-every 5 "
        "--batch-size 24 --warmup 3 --milestones 0.5 --augmentation crop --scope global --schedule one-shot "
        "--sparsity 0.8 --rounds 2 --backend dense",
        killed_at=0,
    ),
)
