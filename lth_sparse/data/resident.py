"""The batches of an epoch where they are used: a step on a GPU finds its own without a word from the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lth_sparse.data.batches import Batches


class ResidentEpoch:
    """What the steps of one epoch begin with, in fixed tensors on `device`, and a counter there of the next step.

    `rate(iteration)` is the learning rate of a step. `seek` is the host's part, once an epoch: copies that it does not
    wait for. `take` is the device's: the same operations on the same tensors at every step, so they can be recorded.
    """

    def __init__(self, batches: Batches, rate: Callable[[int], float], device: torch.device) -> None:
        self._batches = batches
        self._rate = rate
        self._epoch = self._next = 0
        self._plan = batches.plan(0).to(device)
        self._rates = self._rates_of(0).to(device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)

    def _rates_of(self, epoch: int) -> Tensor:
        first = epoch * self._batches.per_epoch
        rates = [self._rate(iteration) for iteration in range(first, first + self._batches.per_epoch)]
        return torch.tensor(rates, dtype=torch.float32)

    def seek(self, iteration: int) -> None:
        """Makes step `iteration` the next one that `take` gives."""
        epoch, step = divmod(iteration, self._batches.per_epoch)
        if epoch != self._epoch:
            for fixed, new in ((self._plan, self._batches.plan(epoch)), (self._rates, self._rates_of(epoch))):
                # From pinned memory, the copy takes its turn among the kernels, and the host goes on.
                fixed.copy_(new.pin_memory() if fixed.is_cuda else new, non_blocking=True)
        if epoch != self._epoch or iteration != self._next:
            self._step.fill_(step)
        self._epoch, self._next = epoch, iteration + 1

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """(images float32 [N, C, H, W], labels int64 [N], learning rate float32 [1]) of the next step; counts it."""
        images, labels = self._batches.batch(self._plan.index_select(0, self._step)[0])
        rate = self._rates.index_select(0, self._step)
        self._step += 1
        return images, labels, rate
