"""Calls of one network for inference by several threads, and the memory of its process after each part of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.nn.masks import prunable
from tests.memory import settled

THREADS = 4
BATCHES = (1, 2, 3, 5, 8, 16, 17, 33)
SIZE = 32


def resident_while(calls: int, samples: int) -> Iterator[float]:
    """Calls a resnet20 of 10 % of its weights `calls` times in all, from `THREADS` threads, with batches of every size
    of `BATCHES`. Gives the mebibytes of this process `samples` times. Raises AssertionError for a wrong output."""
    torch.manual_seed(0)
    model = models.build(models.Network("resnet20", (3, SIZE, SIZE), 10), seed=0).eval()
    masks = {name: torch.rand_like(weight) < 0.1 for name, weight in prunable(model).items()}
    network = lth.for_inference(lth.sparsify(model, masks))
    images = [torch.randn(batch, 3, SIZE, SIZE) for batch in BATCHES]
    with torch.no_grad():
        expected = [network(x) for x in images]

        def part(thread: int, number: int) -> None:
            with torch.no_grad():  # It holds for one thread alone.
                for call in range(number):
                    which = (thread + call) % len(images)
                    assert torch.equal(network(images[which]), expected[which])

        with ThreadPoolExecutor(THREADS) as threads:
            for _ in range(samples):
                list(threads.map(part, range(THREADS), [calls // samples // THREADS] * THREADS))
                yield settled()
