"""Data sets: read once, held in memory as uint8, presented to a network in whole batches."""

from __future__ import annotations

from pathlib import Path

import torch

from lth_sparse.data import digits, folder, mnist_5k, own, published
from lth_sparse.data.dataset import Dataset, Source, Split, resized, split_off_validation, statistics
from lth_sparse.data.registry import Unavailable, loader, names, register
from lth_sparse.settings.config import DataConfig
from lth_sparse.system.errors import InputError

__all__ = ["Dataset", "Split", "digits", "folder", "load", "mnist_5k", "names", "published", "register"]


def load(config: DataConfig, seed: int, minimum_size: int = 1) -> Dataset:
    """The data set that `config` names, split by `seed`, in CPU memory.

    `minimum_size`: pixels; smaller images are enlarged to it, with a notice, unless `config.image_size` says
    otherwise. "auto" is CIFAR-10, or digits with a notice. Raises InputError when the data cannot be used.
    """
    try:
        data_dir = Path(config.data_dir).expanduser()
    except RuntimeError as error:
        raise InputError(f"--data-dir {config.data_dir}: {error}; give the folder in full") from error
    notices = []
    if config.dataset == "auto":
        name, source, notice = _automatic(data_dir, config.image_size)
        notices.append(notice)
    elif own.is_users(config.dataset):
        name, source = config.dataset, own.source(config.dataset, data_dir, config.image_size)
    else:
        name, source = config.dataset, loader(config.dataset)(data_dir, config.image_size)
    size = config.image_size
    height, width = source.train.images.shape[2:]
    if size is None and min(height, width) < minimum_size:
        size = minimum_size
        notices.append(f"Images of {height}x{width} pixels were enlarged to {size}x{size}, which the model needs.")
    train, test = source.train, source.test
    if size is not None:
        train, test = resized(train, size), resized(test, size)
    train, validation = split_off_validation(train, seed)
    mean, deviation = _normalization(config.normalization, train)
    return Dataset(name, " ".join(filter(None, notices)), source.classes, train, validation, test, mean, deviation)


def _automatic(data_dir: Path, image_size: int | None) -> tuple[str, Source, str]:
    try:
        return "cifar10", loader("cifar10")(data_dir, image_size), ""
    except Unavailable as error:
        notice = (
            f"CIFAR-10 is not at hand, so these are results on DIGITS (1,797 images of 8x8), not CIFAR-10: {error}."
        )
        return "digits", loader("digits")(data_dir, image_size), notice


def _normalization(name: str, train: Split) -> tuple[torch.Tensor, torch.Tensor]:
    channels = train.images.shape[1]
    if name == "dataset":
        return statistics(train.images)
    if name == "half":
        return torch.full((channels,), 0.5), torch.full((channels,), 0.5)
    return torch.zeros(channels), torch.ones(channels)
