"""A data set in memory: uint8 images, split into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from lth_sparse.backends.base import memory_format
from lth_sparse.storage.sealed import digest
from lth_sparse.system.errors import InputError
from lth_sparse.system.seeding import generator

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

    def to(self, device: torch.device, layout: torch.memory_format) -> Split:
        """The same images on `device`, in the memory format `layout`."""
        return Split(self.images.to(device, memory_format=layout), self.labels.to(device))

    def select(self, chosen: Tensor) -> Tensor:
        """The images of the indices `chosen`, int64 [n]: uint8 [n, C, H, W], in the layout of all images."""
        if memory_format(self.images) == torch.contiguous_format:
            return self.images.index_select(0, chosen)
        return self.images.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)


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

    def sha256(self) -> str:
        """SHA-256, in hex, of all images and labels in their splits."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        images = {f"{name} images": part.images for name, part in parts.items()}
        return digest(images | {f"{name} labels": part.labels for name, part in parts.items()}, repr(self.classes))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def _normalization(self) -> tuple[Tensor, Tensor]:
        """(offset, factor) float32 [C, H, W] in the layout of an image.

        Of a whole image, so that PyTorch runs over it as one long row, and not over rows of C values.
        """
        image = self.train.images[0]
        offset, factor = (torch.empty_like(image, dtype=torch.float32) for _ in range(2))
        offset.copy_(255 * self.mean[:, None, None])
        factor.copy_(1 / (255 * self.deviation[:, None, None]))
        return offset, factor

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 of the same shape and layout, by the mean and the deviation."""
        offset, factor = self._normalization
        return images.float().sub_(offset).mul_(factor)

    def beginning(self, images: int) -> Dataset:
        """The same data set with the first training images alone, at most so many."""
        return replace(self, train=Split(self.train.images[:images], self.train.labels[:images]))

    def to(self, device: torch.device, layout: torch.memory_format) -> Dataset:
        """The same data set with every tensor on `device`, its images in the memory format `layout`."""
        return replace(
            self,
            train=self.train.to(device, layout),
            validation=self.validation.to(device, layout),
            test=self.test.to(device, layout),
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
