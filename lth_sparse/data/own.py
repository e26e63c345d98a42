"""`module:function`: training and test images from a function of the user's own, as arrays or torch datasets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth_sparse.data.dataset import Source, Split
from lth_sparse.data.folder import sized
from lth_sparse.system import users_code
from lth_sparse.system.errors import InputError, because

EXPECTED = (
    "expected (train, test), each a pair (images, labels) of arrays or tensors, or a torch dataset whose items are "
    "(image, label)"
)
LEVELS = 255
"""A float image in [0, 1] is kept as uint8, in so many steps."""


def is_users(name: str) -> bool:
    """Whether `name` is that of a function of the user's own."""
    return ":" in name


def source(name: str, data_dir: Path, image_size: int | None) -> Source:
    """What the function `name`, "module:function", gives; it is called with those of `data_dir` and `image_size` that
    its signature names, and gives (train, test).

    Each of the two is a pair (images, labels): images uint8, or float in [0, 1], which are rounded to uint8, [N, H, W],
    [N, C, H, W] or, where C is 1 or 3, [N, H, W, C]; labels whole numbers from 0, [N]. Or it is a torch dataset, such
    as torchvision's, whose items are (image, label), an image being one of those above or of PIL. It is read once, so
    what its transform leaves to chance is drawn once, and its attribute `classes` names the classes.

    Raises InputError for anything else.
    """
    where = f"--dataset {name}"
    offered = {"data_dir": data_dir, "image_size": image_size}
    found = users_code.call(users_code.function(name, where), offered, where)
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 2:
        raise InputError(f"{where} gives {_shown(found)}; {EXPECTED}")
    train, test = (
        _split(part, f"{where}: {what}", image_size) for part, what in zip(found, ("train", "test"), strict=True)
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"{where}: training images are {list(train.images.shape[1:])}, test images {list(test.images.shape[1:])}; "
            "give --image-size where only their height and width differ"
        )
    return Source(train, test, _classes(found, train, test, where))


def _split(part: Any, where: str, image_size: int | None) -> Split:
    if isinstance(part, tuple | list) and len(part) == 2:
        images, labels = _pixels(_tensor(part[0], where, "images"), where), part[1]
    elif (
        hasattr(part, "__getitem__")
        and hasattr(part, "__len__")
        and not isinstance(part, Mapping | Tensor | np.ndarray)
    ):
        images, labels = _items(part, where, image_size)
    else:
        raise InputError(f"{where} is {_shown(part)}; {EXPECTED}")
    labels = _labels(_tensor(labels, where, "labels"), where)
    if len(images) != len(labels) or len(labels) == 0:
        raise InputError(f"{where}: {len(images)} images and {len(labels)} labels; expected a label for each image")
    return Split(images, labels)


def _items(part: Any, where: str, image_size: int | None) -> tuple[Tensor, list[Any]]:
    images: list[Tensor] = []
    labels: list[Any] = []
    for number in range(len(part)):
        try:
            image, label = part[number]
        except Exception as error:
            raise InputError(f"{where}: its item {number} is not (image, label): {because(error)}") from error
        if hasattr(image, "mode") and hasattr(image, "convert"):  # A PIL image.
            image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        images.append(sized(_pixels(_tensor(image, where, f"image {number}")[None], where)[0], image_size))
        labels.append(label)
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{where}: images differ in size: the first is {list(images[0].shape)}, number {number} is "
                f"{list(images[-1].shape)}; give --image-size to resize them all"
            )
    return torch.stack(images) if images else torch.empty(0), labels


def _tensor(values: Any, where: str, what: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach().cpu()
    except Exception as error:
        raise InputError(f"{where}: its {what} are no array of numbers: {because(error)}") from error


def _pixels(images: Tensor, where: str) -> Tensor:
    """uint8 [N, C, H, W]."""
    if images.dim() == 3:
        images = images[:, None]
    elif images.dim() == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or 0 in images.shape:
        raise InputError(
            f"{where}: images of shape {list(images.shape)}; expected [N, H, W], [N, C, H, W] or [N, H, W, C]"
        )
    if images.is_floating_point():
        images = _levels(images, where)
    if images.dtype != torch.uint8:
        raise InputError(f"{where}: images of {images.dtype}; expected uint8, or float in [0, 1]")
    return images.contiguous()


def _levels(images: Tensor, where: str) -> Tensor:
    low, high = (float(value) for value in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{where}: float images from {low:.4g} to {high:.4g}; expected [0, 1], as torchvision's ToTensor gives "
            "them: leave their normalisation to --normalization"
        )
    exact = images.double() * LEVELS
    levels = exact.round()
    if float((exact - levels).abs().max()) > 0.01:
        warnings.warn(f"{where}: float images are kept as uint8, so they are rounded to 1/255", stacklevel=2)
    return levels.to(torch.uint8)


def _labels(labels: Tensor, where: str) -> Tensor:
    whole = labels.dim() == 1 and not labels.is_complex() and bool((labels == labels.long()).all())
    if not whole or labels.dtype == torch.bool or (len(labels) and int(labels.min()) < 0):
        raise InputError(
            f"{where}: labels of shape {list(labels.shape)} and {labels.dtype}; expected [N] whole numbers from 0, the "
            "number of each image's class"
        )
    return labels.long()


def _classes(found: Sequence[Any], train: Split, test: Split, where: str) -> tuple[str, ...]:
    used = 1 + max(int(train.labels.max()), int(test.labels.max()))
    named = getattr(found[0], "classes", None)
    names = tuple(str(name) for name in named) if named is not None else tuple(str(number) for number in range(used))
    if len(names) < used:
        raise InputError(f"{where}: the label {used - 1} has no name: its attribute classes has {len(names)}")
    return names


def _shown(found: Any) -> str:
    if isinstance(found, Sequence) and not isinstance(found, str):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__name__}"
