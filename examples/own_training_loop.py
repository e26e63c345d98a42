"""A network and a training loop of your own: train, prune by magnitude in the middle of it, go on training.

Trains a small convolutional network on scikit-learn's digits, prunes 95 % of each layer, and goes on with two copies side
by side: one by torch.nn.utils.prune, which keeps and multiplies every weight, and one by `lth.prune`, which keeps the live
ones. About 20 seconds on two cores, 10 with --quick; no network needed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import lth_sparse as lth


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sparsity", type=float, default=0.95, help="fraction of the weights that is pruned")
parser.add_argument("--quick", action="store_true", help="fewer steps")
options = parser.parse_args()

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.from_numpy(digits.images).float()[:, None] / 8 - 1, torch.from_numpy(digits.target)
test = images[:300], labels[:300]
batches = [(images[batch], labels[batch]) for batch in torch.arange(300, len(images)).split(128)[:-1]]

dense = nn.Sequential(
    nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256 * 2 * 2, 10),
)  # fmt: skip
steps = 40 if options.quick else 100
optimizer = torch.optim.Adam(dense.parameters())
for number in range(steps):
    step(dense, optimizer, *batches[number % len(batches)])
print(f"dense, after {steps} steps: {accuracy(dense, *test):.1%} of the test images")

# The same weights die on both sides. torch's pruning multiplies by a mask at each step, and its optimizer begins anew;
# lth.prune makes the layers sparse, and the optimizer keeps its moments for the weights that survive.
models = {"masked dense": copy.deepcopy(dense), "sparse": dense}
for layer in models["masked dense"]:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        prune.l1_unstructured(layer, "weight", amount=options.sparsity)
lth.prune(dense, sparsity=options.sparsity, optimizer=optimizer)

optimizers = {"masked dense": torch.optim.Adam(models["masked dense"].parameters()), "sparse": optimizer}
times: dict[str, list[float]] = {name: [] for name in models}
for number in range(steps):
    for name, model in models.items():
        began = time.perf_counter()
        step(model, optimizers[name], *batches[number % len(batches)])
        times[name].append(1e3 * (time.perf_counter() - began))

print(f"{'':14}{'accuracy':>10}{'parameters':>12}{'Adam state':>12}{'step, ms':>10}")
for name, model in models.items():
    parameters = sum(parameter.numel() for parameter in model.parameters())
    state = sum(value.numel() for entry in optimizers[name].state.values() for value in entry.values())
    row = f"{parameters:>12,}{state:>12,}{statistics.median(times[name][5:]):>10.2f}"
    print(f"{name:14}{accuracy(model, *test):>10.1%}{row}")
print(f"The two networks step in turn; medians of {steps - 5} steps, without the first 5 of each.")
