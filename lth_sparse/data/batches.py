"""From uint8 images in memory to normalised float batches, whole batches at a time; no worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.system import processes
from lth_sparse.system.seeding import generator


def padding_of(height: int) -> int:
    """Pixels of zero padding before a random crop: 4 for 32x32 images, an eighth of the height in general."""
    return max(1, height // 8)


def drawn(count: int, height: int, augmentation: str, random: torch.Generator) -> Tensor:
    """What `augmentation` leaves to chance for `count` images, int64, on the CPU: [0, count] for "none".

    For "crop" [2, count], the row and the column of the padded image where the crop begins; for "crop-flip" [3, count],
    the last being 1 for images that are mirrored, else 0.
    """
    if augmentation == "none":
        return torch.empty(0, count, dtype=torch.long)
    shift = torch.randint(0, 2 * padding_of(height) + 1, (2, count), generator=random)
    if augmentation == "crop":
        return shift
    return torch.cat([shift, torch.rand(1, count, generator=random) < 0.5])


def augmented(images: Tensor, draws: Tensor) -> Tensor:
    """`images` [N, C, H, W], each cropped out of its padded self, and mirrored, as `draws` [0, 2 or 3, N] say.

    `draws` lie on the device of the images, and nothing here waits for it.
    """
    if not len(draws):
        return images
    count, _, height, width = images.shape
    margin = padding_of(height)
    rows = draws[0][:, None] + torch.arange(height, device=images.device)
    columns = draws[1][:, None] + torch.arange(width, device=images.device)
    if len(draws) == 3:
        columns = torch.where(draws[2][:, None] == 1, columns.flip(1), columns)
    padded = functional.pad(images, (margin, margin, margin, margin))
    image = torch.arange(count, device=images.device)[:, None, None]
    cropped = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return cropped.contiguous() if images.is_contiguous() else cropped


class Batches:
    """The training images as an endless, seeded sequence: batch `i` depends on the seed and on `i` alone.

    `seed`: what chance begins with; `size`: images in a batch; `per_epoch`: batches in an epoch. An epoch is a fresh
    permutation; the images left over after its last full batch sit that epoch out.
    """

    def __init__(self, data: Dataset, batch_size: int, augmentation: str, seed: int) -> None:
        self._data = data
        self.size = min(batch_size, len(data.train))
        self._augmentation = augmentation
        self.seed = seed
        self._epoch = -1
        self._plan = torch.empty(0, dtype=torch.long)
        self.per_epoch = len(data.train) // self.size

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """(images float32 [N, C, H, W], labels int64 [N]) of step `iteration`."""
        return self.batch(self._plan_of(iteration))

    def part(self, iteration: int) -> tuple[Tensor, Tensor]:
        """The same of the part that this process has of the batch: what chance decides is drawn for all of it."""
        return self.batch(self._plan_of(iteration)[:, processes.part(self.size)])

    def _plan_of(self, iteration: int) -> Tensor:
        epoch, step = divmod(iteration, self.per_epoch)
        if epoch != self._epoch:
            self._plan, self._epoch = self.plan(epoch).to(self._data.train.labels.device), epoch
        return self._plan[step]

    def plan(self, epoch: int) -> Tensor:
        """All that chance decides in `epoch`, int64 [per_epoch, 1 + draws, size], on the CPU.

        For each batch the numbers of its images, then what `drawn` gives for them.
        """
        order = torch.randperm(len(self._data.train), generator=generator(self.seed, "order", epoch))
        numbers = order[: self.per_epoch * self.size].view(self.per_epoch, 1, self.size)
        if self._augmentation == "none":
            return numbers
        first = epoch * self.per_epoch
        draws = [
            drawn(
                self.size,
                self._data.image_shape[1],
                self._augmentation,
                generator(self.seed, "augmentation", iteration),
            )
            for iteration in range(first, first + self.per_epoch)
        ]
        return torch.cat([numbers, torch.stack(draws)], dim=1)

    def batch(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """(images float32 [N, C, H, W], labels int64 [N]) of one batch of a plan, [1 + draws, N], on their device."""
        numbers, draws = plan[0], plan[1:]
        images = augmented(self._data.train.select(numbers), draws)
        return self._data.normalized(images), self._data.train.labels.index_select(0, numbers)


def in_order(split: Split, data: Dataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `split` from first to last, normalised, for evaluation."""
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        yield data.normalized(images), labels
