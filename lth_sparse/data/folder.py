"""`folder`: any tree `train/<class>/*`, `test/<class>/*` of images, read through torchvision, cached beside them."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

from lth_sparse.data.dataset import Source, Split
from lth_sparse.data.registry import register
from lth_sparse.storage import sealed
from lth_sparse.system.errors import InputError


def _listing(directory: Path) -> ImageFolder:
    if not os.path.isdir(directory):  # Nor one that may not be seen.
        raise InputError(
            f"data folder {directory} is missing; --dataset folder reads DIR/train/<class>/* and "
            "DIR/test/<class>/*, with DIR given by --data-dir"
        )
    _refuse_loops(directory)
    try:
        return ImageFolder(str(directory))
    except FileNotFoundError as error:
        raise InputError(f"data folder {directory} has a class without images, or none: {error}") from error
    except OSError as error:
        raise InputError(f"data folder {directory} cannot be read: {error.strerror}") from error


def _refuse_loops(directory: Path) -> None:
    """torchvision follows symbolic links, and finds the same images again and again where one leads back."""
    for root, folders, _ in os.walk(directory, followlinks=True):
        for name in folders:
            if os.path.islink(link := Path(root, name)):
                before = [each for each in (link, *link.parents) if each.is_relative_to(directory)][1:]
                if os.path.realpath(link) in map(os.path.realpath, before):
                    raise InputError(f"data folder {link} is a link to a folder that it lies in; take it out")


def _in_8_bits(image: Image.Image, path: str) -> Image.Image:
    """16 bits of grey as their upper 8: Pillow would make 255 of all that is more. Refuses what has no known range."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        what = "32-bit whole numbers" if image.mode == "I" else "floating-point numbers"
        raise InputError(f"image {path} has pixels that are {what}, of no known range; give 8 or 16 bits a channel")
    return image


def _check_proportions(image: Image.Image, path: str, image_size: int) -> None:
    """Resized by its shorter side a line is a large image: refused where Pillow would refuse to read one so large."""
    shorter, longer = sorted(image.size)
    if Image.MAX_IMAGE_PIXELS and image_size * image_size * longer > 2 * Image.MAX_IMAGE_PIXELS * max(shorter, 1):
        raise InputError(
            f"image {path} is {image.width}x{image.height}: its shorter side resized to {image_size}, it would have "
            f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels; take it out"
        )


def _decoded(path: str, image_size: int | None) -> Tensor:
    """The image at `path`, uint8 [3, H, W], as `sized` gives it."""
    try:
        with Image.open(path) as image:
            if image_size is not None:
                _check_proportions(image, path, image_size)
            pixels = np.array(_in_8_bits(image, path).convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow raises half a dozen unrelated types for images that it cannot decode.
        reason = " ".join(str(error).split())
        raise InputError(f"image {path} is broken: {reason}; mend it or take it out") from error
    return sized(torch.from_numpy(pixels).permute(2, 0, 1), image_size)


def sized(image: Tensor, image_size: int | None) -> Tensor:
    """uint8 [C, H, W] as a square of `image_size` pixels, if given: its shorter side resized, its middle kept."""
    if image_size is not None and tuple(image.shape[1:]) != (image_size, image_size):
        image = functional.center_crop(functional.resize(image, [image_size]), [image_size, image_size])
    return image


def _read(listing: ImageFolder, image_size: int | None) -> Split:
    # In one thread: for images of CIFAR's size, two of them spend their time on the interpreter's lock.
    images = [_decoded(path, image_size) for path, _ in listing.samples]
    for image, (path, _) in zip(images, listing.samples, strict=True):
        if image.shape != images[0].shape:
            sizes = [
                f"{name} is {one.shape[2]}x{one.shape[1]}"
                for name, one in ((listing.samples[0][0], images[0]), (path, image))
            ]
            raise InputError(f"images differ in size: {', '.join(sizes)}; give --image-size to resize them all")
    return Split(torch.stack(images), torch.tensor(listing.targets))


def _fingerprint(listings: list[ImageFolder], image_size: int | None) -> str:
    """SHA-256 over every file's path, size and time of change: a folder that changed is read anew."""
    sha = hashlib.sha256(f"{image_size} 16 bits of grey".encode())
    for listing in listings:
        for path, label in listing.samples:
            try:
                status = os.stat(path)
            except OSError as error:
                raise InputError(f"image {path} cannot be read: {error.strerror}; mend it or take it out") from error
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"image {path} is no regular file; take it out")
            sha.update(f"{path} {label} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return sha.hexdigest()


@register("folder")
def folder(data_dir: Path, image_size: int | None) -> Source:
    """The images under `data_dir`, in colour. Decoding 60,000 of them takes seconds once; the cache file
    `.lth_sparse.safetensors` in `data_dir` then gives them back at once, for as long as no image changes.

    Raises InputError for a folder that is missing or empty, a broken image, test classes that are not those of
    the training images, and images of several sizes without `image_size`.
    """
    listings = [_listing(data_dir / part) for part in ("train", "test")]
    if listings[0].classes != listings[1].classes:
        differing = sorted(set(listings[0].classes) ^ set(listings[1].classes))
        raise InputError(f"{data_dir}/train and {data_dir}/test differ in their classes: {', '.join(differing)}")
    cache = data_dir / ".lth_sparse.safetensors"
    fingerprint = _fingerprint(listings, image_size)
    tensors = _cached(cache, fingerprint, listings)
    if tensors is None:
        train, test = (_read(listing, image_size) for listing in listings)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise InputError(
                f"training images are {tuple(train.images.shape[2:])} (height, width), test images "
                f"{tuple(test.images.shape[2:])}; give --image-size to resize them all"
            )
        tensors = {
            "train_images": train.images,
            "train_labels": train.labels,
            "test_images": test.images,
            "test_labels": test.labels,
        }
        try:
            sealed.write(cache, tensors, {"fingerprint": fingerprint})
        except OSError as error:
            warnings.warn(f"images are not cached, so the next run decodes them again: {error}", stacklevel=2)
    return Source(
        Split(tensors["train_images"], tensors["train_labels"]),
        Split(tensors["test_images"], tensors["test_labels"]),
        # A name that is no text can be in no page and no plot.
        tuple(os.fsencode(name).decode(errors="backslashreplace") for name in listings[0].classes),
    )


def _cached(cache: Path, fingerprint: str, listings: list[ImageFolder]) -> dict[str, Tensor] | None:
    """What the cache has; None where it is not there, not whole, or not of these images: that costs seconds."""
    try:
        tensors, data = sealed.read(cache)
    except (OSError, sealed.DamagedFile):
        return None
    whole = data.get("fingerprint") == fingerprint
    sizes = set()
    for part, listing in zip(("train", "test"), listings, strict=True):
        images, labels = tensors.get(f"{part}_images", torch.empty(0)), tensors.get(f"{part}_labels", torch.empty(0))
        # Whoever gave the images may have sealed anything.
        whole = whole and images.dtype == torch.uint8 and images.dim() == 4 and images.numel() > 0
        whole = whole and images.shape[:2] == (len(listing.targets), 3) and labels.dtype == torch.int64
        whole = whole and labels.tolist() == listing.targets
        sizes.add(images.shape[2:])
    return tensors if whole and len(sizes) == 1 else None
