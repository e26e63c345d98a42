"""A torchvision ResNet-18, pruned globally to 95 % and made sparse: outputs, forward pass and training step.

Random weights, so nothing is downloaded; the convolutions keep their largest magnitudes, the classifier stays dense.
Beside it stands the same network in masked dense PyTorch, whose weights torch.nn.utils.prune multiplies by their masks.
About 20 seconds on two cores, 10 with --quick; no network needed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

import lth_sparse as lth

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sparsity", type=float, default=0.95, help="fraction of the convolutions' weights that is pruned")
parser.add_argument("--quick", action="store_true", help="fewer and smaller images, fewer repetitions")
options = parser.parse_args()

torch.manual_seed(0)
batch, size, repetitions = (4, 64, 5) if options.quick else (8, 128, 12)
images, labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))

dense = torchvision.models.resnet18(weights=None)
models = {"masked dense": dense, "sparse": copy.deepcopy(dense)}
for model in models.values():
    convolutions = [(layer, "weight") for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    prune.global_unstructured(convolutions, prune.L1Unstructured, amount=options.sparsity)
lth.sparsify(models["sparse"])
optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for name, model in models.items()}


def forward(name: str) -> Tensor:
    with torch.no_grad():
        return models[name](images)


def step(name: str) -> None:
    optimizers[name].zero_grad()
    nn.functional.cross_entropy(models[name](images), labels).backward()
    optimizers[name].step()


# With BatchNorm in training mode: its statistics of an untrained network would let little of the images through.
expected, given = forward("masked dense"), forward("sparse")
error = float((given - expected).abs().max() / expected.std(0).max())

medians = {}
for call in (step, forward):
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(3 + repetitions):
        for name, model in models.items():
            model.train(call is step)
            began = time.perf_counter()
            call(name)
            times[name].append(1e3 * (time.perf_counter() - began))
    medians[call] = {name: statistics.median(measured[3:]) for name, measured in times.items()}

print(f"outputs differ by at most {error:.1e} of their deviation from image to image")
print(f"{'':14}{'parameters':>12}{'forward, ms':>13}{'step, ms':>10}")
for name, model in models.items():
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:14}{parameters:>12,}{medians[forward][name]:>13.1f}{medians[step][name]:>10.1f}")
print(f"{batch} images of {size}x{size}; the two sides in turn, after 3 calls to warm up; medians of {repetitions}.")
