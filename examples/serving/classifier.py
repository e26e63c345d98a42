"""A ticket's network, and what becomes of an image before it: pixels as the ticket was trained on, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastapi import HTTPException
from PIL import Image, UnidentifiedImageError

import lth_sparse as lth
from lth_sparse import data
from lth_sparse.settings.config import Config, check
from lth_sparse.system.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow reads more, but some by other programs: EPS by Ghostscript, which no stranger should reach."""


class Classifier:
    """A ticket's network for inference: images as bytes of pixels in, the probabilities of its classes out."""

    def __init__(self, path: Path, data_dir: str) -> None:
        model = lth.load_ticket(path).eval()
        self.network = model.ticket.network
        self.is_rewound = "rewind" in model.ticket.metadata
        if self.network.input_shape[0] not in (1, 3):
            raise InputError(f"{path} takes images of {self.network.input_shape[0]} channels; expected 1 or 3")
        mean, deviation, self.classes = normalization(path, model.ticket, data_dir)
        # As lth_sparse.data normalises: bytes, less the mean, by the deviation.
        self._offset, self._factor = 255 * mean[:, None, None], 1 / (255 * deviation[:, None, None])
        self._dtype = next(model.parameters()).dtype
        self._model = lth.for_inference(lth.sparsify(model, model.ticket.masks), strict=False)
        try:
            self([np.zeros(self.network.input_shape, np.uint8)])  # Makes the engine: the first request does not wait.
        except FloatingPointError as error:
            raise InputError(f"{path}: {error}, of a black image") from error

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[float]]:
        """uint8 [C, H, W] each -> the probabilities of the classes, for each image."""
        pixels = torch.from_numpy(np.stack(images)).float().sub_(self._offset).mul_(self._factor)
        probabilities = self._model(pixels.to(self._dtype)).softmax(1)
        if not probabilities.isfinite().all():
            raise FloatingPointError("the network's output is not finite")
        return probabilities.tolist()

    def decoded(self, body: bytes) -> np.ndarray:
        """The image in `body`, uint8 [C, H, W]; in colour or grey, as the network takes it. Raises HTTPException."""
        channels, height, width = self.network.input_shape
        try:
            image = Image.open(io.BytesIO(body), formats=FORMATS)
            # The header has the size: what the network cannot take is not decoded.
            fits = image.size == (width, height) and not image.mode.startswith(("I", "F"))
            pixels = np.array(image.convert("L" if channels == 1 else "RGB")) if fits else None
        except UnidentifiedImageError as error:
            raise HTTPException(
                400, f"the body is no image of a known format; expected {', '.join(FORMATS)}"
            ) from error
        except Exception as error:  # Pillow raises half a dozen unrelated types for images that it cannot decode.
            raise HTTPException(400, f"the image is broken: {' '.join(str(error).split())}") from error
        if image.size != (width, height):
            raise HTTPException(
                422,
                f"the image is {image.width}x{image.height}; the network takes {width}x{height} (width x height): "
                "resize it as the training images were",
            )
        if pixels is None:
            raise HTTPException(422, f"the image has pixels of Pillow's mode {image.mode}; expected 8 bits a channel")
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def normalization(path: Path, ticket: lth.Ticket, data_dir: str) -> tuple[torch.Tensor, torch.Tensor, list[str] | None]:
    """(mean, deviation, names of the classes): float32 [C] of pixels in [0, 1], as the ticket was trained with.

    They are what the ticket says itself (metadata "mean", "deviation", "classes"), else those of the data set that its
    run names, split by the run's seed. Raises InputError where neither is to be had.
    """
    channels, classes = ticket.network.input_shape[0], ticket.network.classes
    if "mean" in ticket.metadata:
        try:
            mean, deviation = (torch.tensor(ticket.metadata[name]).float() for name in ("mean", "deviation"))
            right = mean.shape == deviation.shape == (channels,)
            right = right and bool(mean.isfinite().all() and deviation.isfinite().all() and (deviation > 0).all())
        except (KeyError, TypeError, ValueError, RuntimeError):
            right = False
        names = ticket.metadata.get("classes")
        if not right or not (names is None or (isinstance(names, list) and len(names) == classes)):
            raise InputError(
                f"{path}: metadata 'mean', 'deviation', 'classes': expected {channels} numbers, as many above 0, and "
                f"the names of {classes} classes or none"
            )
        return mean, deviation, names
    try:
        settings = Config.from_json(ticket.metadata["config"])
        check(settings)
        source, name = settings.data, str(ticket.metadata["dataset"])
    except (KeyError, TypeError, AttributeError, ValueError):
        name = ""
    if name not in data.names():
        raise InputError(
            f"{path} does not say how its images were normalised, and names no data set of lth_sparse: save it with "
            "metadata={'mean': [...], 'deviation': [...]}, a number for each channel"
        )
    # Not the folder that the ticket names: a file does not decide what is read here.
    source = replace(source, dataset=name, data_dir=data_dir)
    found = data.load(source, settings.seed, min(ticket.network.input_shape[1:]))
    if (found.image_shape, len(found.classes)) != (ticket.network.input_shape, classes):
        raise InputError(
            f"{path} is for images of {ticket.network.input_shape} and {classes} classes; {name} under {data_dir} has "
            f"{found.image_shape} and {len(found.classes)}"
        )
    return found.mean, found.deviation, list(found.classes)
