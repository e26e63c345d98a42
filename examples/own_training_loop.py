"""A network and a training loop of your own: train, prune by magnitude in the middle of it, go on training.

Trains a small convolutional network on scikit-learn's digits, and prunes it in four stages to 95 % of each layer, with
two copies side by side: one by torch.nn.utils.prune, which keeps and multiplies every weight, and one by `lth.prune`,
which keeps the live ones. About 14 seconds on two cores, 8 with --quick; no network needed.
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


STAGES = 4

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

# Both sides lose the same weights, and both optimizers keep their moments for those that survive. torch's pruning
# multiplies by a mask at each step; lth.prune makes the layers sparse, and the optimizer as small as they are.
masked, its_optimizer = copy.deepcopy((dense, optimizer))
sides = {"masked dense": (masked, its_optimizer), "sparse": (dense, optimizer)}
for stage in range(1, STAGES + 1):
    sparsity = options.sparsity * (1 - (1 - stage / STAGES) ** 3)  # Zhu and Gupta's schedule
    lth.prune(dense, sparsity=sparsity, optimizer=optimizer)
    for name, mask in lth.get_masks(dense).items():
        prune.custom_from_mask(masked.get_submodule(name), "weight", mask)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(steps // 2):
        for name, (model, its) in sides.items():
            began = time.perf_counter()
            step(model, its, *batches[number % len(batches)])
            times[name].append(1e3 * (time.perf_counter() - began))

print(f"{'':14}{'accuracy':>10}{'parameters':>12}{'Adam state':>12}{'step, ms':>10}")
for name, (model, its) in sides.items():
    parameters = sum(parameter.numel() for parameter in model.parameters())
    state = sum(value.numel() for entry in its.state.values() for value in entry.values())
    row = f"{parameters:>12,}{state:>12,}{statistics.median(times[name][5:]):>10.2f}"
    print(f"{name:14}{accuracy(model, *test):>10.1%}{row}")
print("The two networks step in turn; medians of the last stage, without its first 5 steps.")
