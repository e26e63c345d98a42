"""Whole networks for inference: `python -m bench.inference NETWORK [BATCH]`, in half a minute.

The network of torchvision, with 224 x 224 pixels and all convolutions but those on images pruned at random: what
`lth.for_inference` makes of it, with the engine and layer by layer, beside dense PyTorch in both of its layouts, all in
turn in this process.
"""

from __future__ import annotations

import argparse

import torch
import torchvision
from torch import nn

import lth_sparse as lth
from bench.timing.contest import Contest, Side
from bench.timing.stopwatch import HostStopwatch
from lth_sparse.system import allocator

SECONDS = 20.0
SPARSITY = 0.9
SIZE = 224


def sides(name: str, batch: int) -> dict[str, Side]:
    """What is timed, on the same images."""
    model = getattr(torchvision.models, name)(weights=None).eval()
    masks = {
        layer: torch.rand_like(each.weight) >= SPARSITY
        for layer, each in model.named_modules()
        if isinstance(each, nn.Conv2d) and each.in_channels > 3 and each.groups == 1
    }
    sparse = lth.sparsify(model, masks)
    x, engine, layers = torch.randn(batch, 3, SIZE, SIZE), lth.for_inference(sparse), lth.for_inference(sparse).network
    dense, last = lth.densify(sparse), lth.densify(sparse).to(memory_format=torch.channels_last)
    of_last = x.contiguous(memory_format=torch.channels_last)
    return {
        "engine": {"forward": lambda: engine(x)},
        "layer by layer": {"forward": lambda: layers(x)},
        "dense, contiguous": {"forward": lambda: dense(x)},
        "dense, channels_last": {"forward": lambda: last(of_last)},
    }


def main() -> None:
    """Prints the milliseconds of each, and their time over the engine's."""
    parser = argparse.ArgumentParser(prog="python -m bench.inference")
    parser.add_argument("network", help="by its name in torchvision.models")
    parser.add_argument("batch", type=int, nargs="?", default=1)
    given = parser.parse_args()
    allocator.keep_freed_memory()
    torch.manual_seed(0)
    with torch.no_grad():
        times = Contest(given.network, sides(given.network, given.batch), HostStopwatch()).run(SECONDS)
    print(f"{given.network}, batch {given.batch}, {SPARSITY:.0%} pruned, {torch.get_num_threads()} threads")
    for side in times.seconds:
        row = times.row("engine", side, SPARSITY)
        low, high = row.quartiles or (0.0, 0.0)
        print(
            f"{side:<20} {1000 * min(times.of(side)):8.2f} ms; over the engine's: by minimum {row.by_minimum:.2f}, "
            f"median {row.by_median:.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
