"""The published sets, through torchvision, which fetches them with a progress bar and checks their checksums."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torchvision.datasets as published
from torch import Tensor

from lth_sparse.data import installed
from lth_sparse.data.dataset import Source, Split
from lth_sparse.data.registry import Unavailable, register
from lth_sparse.system.home import from_home

# Without a limit, a network that swallows packets would hold the run up for many minutes before it falls back.
NETWORK_PATIENCE_SECONDS = 20.0

UNREADABLE = (RuntimeError, OSError, ValueError, AssertionError, EOFError, HTTPException)
"""What torchvision raises for data that is not there, not whole, or not to be fetched."""


@contextmanager
def _network_patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_PATIENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _on_disk(make: Callable[[bool, bool], Any]) -> list[Any] | None:
    """[train, test] of torchvision's class; None where they are not there or not whole: it does not say which."""
    try:
        return [make(train, False) for train in (True, False)]
    except UNREADABLE:
        return None


def _fetched(name: str, make: Callable[[bool, bool], Any], data_dir: Path) -> list[Any]:
    was_there = data_dir.exists()
    try:
        with _network_patience():
            return [make(train, True) for train in (True, False)]
    except UNREADABLE as error:
        if not was_there and data_dir.is_dir() and not any(path.is_file() for path in data_dir.rglob("*")):
            shutil.rmtree(data_dir)  # torchvision makes its folders before it fetches anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        where = from_home(str(data_dir))  # A run that falls back to digits records this message.
        raise Unavailable(
            f"data set {name!r} is not whole under {where} and could not be read or fetched ({reason}); put it "
            "there, name another folder with --data-dir, or choose --dataset digits, which needs no network"
        ) from error


def _split(part: Any) -> Split:
    """torchvision's arrays, [N, H, W], [N, H, W, C] or [N, 3, H, W], as uint8 [N, C, H, W]."""
    pixels: Tensor = torch.as_tensor(part.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = part.labels if hasattr(part, "labels") else part.targets
    return Split(pixels.contiguous(), torch.as_tensor(labels).long())


def _load(
    name: str,
    make: Callable[[bool, bool], Any],
    data_dir: Path,
    elsewhere: Callable[[], Source | None] = lambda: None,
) -> Source:
    """The user's own files, else what the machine has `elsewhere`, else those of the network."""
    on_disk = _on_disk(make)
    if on_disk is None and (found := elsewhere()) is not None:
        return found
    train, test = on_disk or _fetched(name, make, data_dir)
    classes = getattr(train, "classes", None) or [str(digit) for digit in range(10)]
    return Source(_split(train), _split(test), tuple(classes))


@register("cifar10")
def cifar10(data_dir: Path, image_size: int | None) -> Source:
    """50,000 + 10,000 colour images of 32x32 in ten classes (Krizhevsky 2009)."""
    return _load("cifar10", lambda train, fetch: published.CIFAR10(data_dir, train, download=fetch), data_dir)


@register("cifar100")
def cifar100(data_dir: Path, image_size: int | None) -> Source:
    """50,000 + 10,000 colour images of 32x32 in a hundred classes (Krizhevsky 2009)."""
    return _load("cifar100", lambda train, fetch: published.CIFAR100(data_dir, train, download=fetch), data_dir)


@register("mnist")
def mnist(data_dir: Path, image_size: int | None) -> Source:
    """60,000 + 10,000 handwritten digits of 28x28 (LeCun et al. 1998)."""
    return _load("mnist", lambda train, fetch: published.MNIST(data_dir, train, download=fetch), data_dir)


@register("fashion-mnist")
def fashion_mnist(data_dir: Path, image_size: int | None) -> Source:
    """60,000 + 10,000 pieces of clothing of 28x28 (Xiao et al. 2017); Debian's, where `data_dir` has none."""
    return _load(
        "fashion-mnist",
        lambda train, fetch: published.FashionMNIST(data_dir, train, download=fetch),
        data_dir,
        installed.fashion_mnist,
    )


@register("svhn")
def svhn(data_dir: Path, image_size: int | None) -> Source:
    """73,257 + 26,032 house numbers of 32x32, in colour (Netzer et al. 2011)."""

    def make(train: bool, fetch: bool) -> Any:
        return published.SVHN(data_dir, "train" if train else "test", download=fetch)

    return _load("svhn", make, data_dir)
