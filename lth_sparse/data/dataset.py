"""A data set in memory: uint8 images, split into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from lth_sparse.errors import InputError
from lth_sparse.seeding import generator

VALIDATION_FRACTION = 10
VALIDATION_LIMIT = 5000
RESIZE_CHUNK = 2000


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same images on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Source:
    """A data set as it was published: its own training and test images, and the names of its classes."""

    train: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """What a run trains on. `notice` is empty, or a sentence that every reader of the results has to see.

    `mean`, `deviation`: float32 [C], of pixels in [0, 1], by which images are normalised.
    """

    name: str
    notice: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: Tensor
    deviation: Tensor

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> Dataset:
        """The same data set with every tensor on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            deviation=self.deviation.to(device),
        )


def split_off_validation(train: Split, seed: int) -> tuple[Split, Split]:
    """(train, validation): a tenth of the images, at most 5,000, drawn by `seed`; 45k / 5k for CIFAR-10.

    Raises InputError when there are too few images to hold any back.
    """
    count = min(len(train) // VALIDATION_FRACTION, VALIDATION_LIMIT)
    if count == 0:
        raise InputError(
            f"the data set has {len(train)} training images; at least {VALIDATION_FRACTION} are needed, "
            "because one in ten is held back for validation"
        )
    order = torch.randperm(len(train), generator=generator(seed, "validation split"))
    held_back, kept = order[:count].sort().values, order[count:].sort().values
    return (
        Split(train.images[kept], train.labels[kept]),
        Split(train.images[held_back], train.labels[held_back]),
    )


def resized(split: Split, size: int) -> Split:
    """`split` with images of `size` x `size` pixels (bilinear, antialiased)."""
    if tuple(split.images.shape[2:]) == (size, size):
        return split
    chunks = [
        functional.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for chunk in split.images.split(RESIZE_CHUNK)
    ]
    return Split(torch.cat(chunks), split.labels)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], for pixels in [0, 1]; float32 [C]."""
    count = images.numel() // images.shape[1]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in images.split(RESIZE_CHUNK):
        pixels = chunk.to(torch.float32).div_(255)
        total += pixels.sum((0, 2, 3), dtype=torch.float64)
        squares += pixels.square_().sum((0, 2, 3), dtype=torch.float64)
    mean = total / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt()
    # A channel that never changes carries nothing; dividing it by 1 leaves it at 0.
    deviation[deviation == 0] = 1
    return mean.float(), deviation.float()
