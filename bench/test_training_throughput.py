"""The `dense` backend against a plain hand-written PyTorch loop: later speedups are against an honest baseline.

The plain loop is what a researcher writes: images normalised once and kept as floats, a random batch, forward,
backward, the optimizer, and the mask applied after each step. Ours keeps images as uint8 and normalises each batch.
Both use the same memory format, the faster one for the network. Both sides run the same network on the same data from
the same weights, a step of each in turn; the figure is the median over the pairs of their time over ours, so 1.1 means
that ours trains 1.1 times as many images a second. It has to be at least 0.95.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.suite.run import Suite
from lth_sparse import models
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.data.dataset import statistics as image_statistics
from lth_sparse.lottery.training import Training
from lth_sparse.nn.masks import Masks, apply, prunable
from lth_sparse.settings.config import TrainingConfig
from lth_sparse.system.memory_formats import MEMORY_FORMATS

BATCH_SIZE = 128
LEAST_RATIO = 0.95
WARM_UP = 3


def cifar_shaped() -> Dataset:
    """Random images of CIFAR-10's shape: the time of a step does not depend on what the images show."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8192, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = Split(images, torch.randint(0, 10, (8192,), generator=generator))
    return Dataset("random", "", tuple("0123456789"), part, part, part, *image_statistics(images))


def plain_step(model: nn.Module, masks: Masks, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A step of the loop that a researcher writes by hand."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def step() -> None:
        batch = torch.randint(0, len(labels), (BATCH_SIZE,))
        optimizer.zero_grad()
        loss = criterion(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, weight in prunable(model).items():
                weight *= masks[name]

    return step


@pytest.mark.cpu
@pytest.mark.full
@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "repeats"),
    [("lenet-300-100", 400), ("small", 60), ("resnet20", 25), ("conv4", 15), ("network", 15)],
)
def test_dense_backend_against_a_plain_loop(
    benchmark: Callable[..., object], suite: Suite, name: str, repeats: int
) -> None:
    data = cifar_shaped()
    model = models.build(models.Network(name, data.image_shape, 10), seed=0)
    layout = MEMORY_FORMATS[models.faster_format(model)]
    model, data = model.to(memory_format=layout), data.to(torch.device("cpu"), layout)
    masks = {layer: torch.rand(weight.shape) < 0.1 for layer, weight in prunable(model).items()}
    apply(model, masks)
    config = TrainingConfig(optimizer="sgd", learning_rate=0.01, batch_size=BATCH_SIZE, epochs=1000)
    theirs = plain_step(copy.deepcopy(model), masks, data.normalized(data.train.images), data.train.labels)
    batches = Batches(data, BATCH_SIZE, "none", 0)
    ours = Training(model, masks, data, batches, config, (1, "ticket")).step
    times: dict[str, list[float]] = {"ours": [], "theirs": []}

    def pair() -> None:
        for side, step in (("ours", ours), ("theirs", theirs))[:: 1 if len(times["ours"]) % 2 else -1]:
            began = time.perf_counter()
            step()
            times[side].append(time.perf_counter() - began)

    benchmark.pedantic(pair, rounds=repeats, iterations=1, warmup_rounds=WARM_UP)  # type: ignore[attr-defined]
    ratios = [theirs / ours for ours, theirs in zip(times["ours"][WARM_UP:], times["theirs"][WARM_UP:], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    medians = {side: statistics.median(values[WARM_UP:]) for side, values in times.items()}
    suite.lines.append(
        f"{name:14} dense backend {BATCH_SIZE / medians['ours']:7,.0f} images/s, plain loop "
        f"{BATCH_SIZE / medians['theirs']:7,.0f} images/s, ratio {ratio:.3f} (quartiles {low:.3f} to {high:.3f})"
    )
    benchmark.extra_info["ratio"] = ratio  # type: ignore[attr-defined]
    assert ratio >= LEAST_RATIO
