"""From uint8 images in memory to normalised float batches, whole batches at a time; no worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.seeding import generator


def padding_of(height: int) -> int:
    """Pixels of zero padding before a random crop: 4 for 32x32 images, an eighth of the height in general."""
    return max(1, height // 8)


def augmented(images: Tensor, augmentation: str, random: torch.Generator) -> Tensor:
    """`images` [N, C, H, W], each cropped at a random place of its padded self, and mirrored for "crop-flip"."""
    if augmentation == "none":
        return images
    count, _, height, width = images.shape
    margin = padding_of(height)
    shift = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=random)
    rows = shift[0] + torch.arange(height)
    columns = shift[1] + torch.arange(width)
    if augmentation == "crop-flip":
        mirrored = torch.rand(count, 1, generator=random) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(images, (margin, margin, margin, margin))
    image = torch.arange(count)[:, None, None]
    index = [part.to(images.device) for part in (image, rows[:, :, None], columns[:, None, :])]
    cropped = padded[index[0], :, index[1], index[2]].permute(0, 3, 1, 2)
    return cropped.contiguous() if images.is_contiguous() else cropped


class Batches:
    """The training images as an endless, seeded sequence: batch `i` depends on the seed and on `i` alone.

    `size`: images in a batch; `per_epoch`: batches in an epoch. An epoch is a fresh permutation; the images left over
    after its last full batch sit that epoch out.
    """

    def __init__(self, data: Dataset, batch_size: int, augmentation: str, seed: int) -> None:
        self._data = data
        self.size = min(batch_size, len(data.train))
        self._augmentation = augmentation
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)
        self.per_epoch = len(data.train) // self.size

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """(images float32 [N, C, H, W], labels int64 [N]) of step `iteration`."""
        epoch, step = divmod(iteration, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._data.train), generator=generator(self._seed, "order", epoch))
            self._order, self._epoch = order.to(self._data.train.labels.device), epoch
        chosen = self._order[step * self.size : (step + 1) * self.size]
        images = self._data.train.select(chosen)
        if self._augmentation != "none":
            images = augmented(images, self._augmentation, generator(self._seed, "augmentation", iteration))
        return self._data.normalized(images), self._data.train.labels.index_select(0, chosen)


def in_order(split: Split, data: Dataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `split` from first to last, normalised, for evaluation."""
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        yield data.normalized(images), labels
