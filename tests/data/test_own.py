"""`--dataset module:function`: what the function may give, and what it may not."""

from __future__ import annotations

import re
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import Subset, TensorDataset

from lth_sparse import data
from lth_sparse.data import own
from lth_sparse.data.dataset import Source
from lth_sparse.settings.config import DataConfig
from lth_sparse.system.errors import InputError

Given = Callable[..., Source]
PIXELS = torch.randint(0, 256, (12, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """The source made of what a function of the user's own gives."""

    def made(found: Any, image_size: int | None = None, function: Callable[..., Any] | None = None) -> Source:
        module = types.ModuleType("own_data")
        module.load = function or (lambda: found)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_data", module)
        return own.source("own_data:load", Path("somewhere"), image_size)

    return made


class Listed(torch.utils.data.Dataset):
    """A torch dataset of these items, with names for its classes."""

    def __init__(self, items: list[Any], classes: Any = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


IMAGES = [torchvision.transforms.functional.to_pil_image(image) for image in PIXELS]
FORMS: dict[str, Any] = {
    "tensors": (PIXELS, LABELS),
    "a list of them": [PIXELS, LABELS.tolist()],
    "arrays, channels last": (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS.numpy().astype(np.uint8)),
    "floats": (PIXELS / 255, LABELS.float()),
    "float64": (PIXELS.numpy() / 255.0, LABELS),
    "dataset of PIL images": Listed(list(zip(IMAGES, LABELS.tolist(), strict=True))),
    "dataset of tensors": TensorDataset(PIXELS, LABELS),
    "dataset of ToTensor's": Listed([(image / 255, label) for image, label in zip(PIXELS, LABELS, strict=True)]),
    "dataset of arrays": Listed([(np.array(image), 1 * label) for image, label in zip(IMAGES, LABELS, strict=True)]),
    "subset": Subset(TensorDataset(PIXELS, LABELS), range(12)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form: str, given: Given) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = given((FORMS[form], FORMS["tensors"]))
    for split in (source.train, source.test):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert torch.equal(split.images, PIXELS)
        assert torch.equal(split.labels, LABELS)
    assert source.classes == ("0", "1", "2")


@pytest.mark.parametrize("channels", [None, 1, 2, 4])
def test_images_of_other_channels(channels: int | None, given: Given) -> None:
    images = PIXELS[:, 0] if channels is None else PIXELS[:, :1].repeat(1, channels, 1, 1)
    expected = PIXELS[:, :1] if channels is None else images
    assert torch.equal(given(((images, LABELS), (images, LABELS))).train.images, expected)


def test_a_pair_of_torchvisions_datasets_works(given: Given) -> None:
    def vision(size: int) -> torchvision.datasets.VisionDataset:
        return torchvision.datasets.FakeData(size, (3, 8, 8), 4)

    source = given((vision(20), vision(10)))
    assert (source.train.images.shape, source.test.images.shape) == ((20, 3, 8, 8), (10, 3, 8, 8))
    folders = Listed([(image.convert(mode), 0) for image, mode in zip(IMAGES, ["RGBA", "P"] * 6, strict=True)])
    assert given((folders, folders)).train.images.shape == (12, 3, 5, 4)
    grey = Listed([(image.convert("L"), 0) for image in IMAGES])
    assert given((grey, grey)).train.images.shape == (12, 1, 5, 4)


def test_classes_have_the_names_of_the_training_images(given: Given) -> None:
    part = Listed([(image, label) for image, label in zip(PIXELS, LABELS, strict=True)], ["cat", "dog", "eel", "fox"])
    assert given((part, FORMS["tensors"])).classes == ("cat", "dog", "eel", "fox")


def test_a_function_is_given_the_folder_and_the_size_if_it_asks(given: Given) -> None:
    asked = {}

    def load(image_size: int, data_dir: Path = Path(), seed: int = 3) -> Any:
        asked.update(image_size=image_size, data_dir=data_dir, seed=seed)
        return (PIXELS, LABELS), (PIXELS, LABELS)

    given(None, 7, load)
    assert asked == {"image_size": 7, "data_dir": Path("somewhere"), "seed": 3}


def test_images_of_several_sizes_are_resized_where_a_size_is_given(given: Given) -> None:
    part = Listed([(PIXELS[0], 0), (PIXELS[0, :, :4], 1)])
    with pytest.raises(InputError, match=r"the first is \[3, 5, 4\], number 1 is \[3, 4, 4\]; give --image-size"):
        given((part, part))
    assert given((part, part), 4).train.images.shape == (2, 3, 4, 4)


def test_rounding_is_said(given: Given) -> None:
    part = (PIXELS / 255 + 0.001 * (PIXELS < 100), LABELS)
    with pytest.warns(UserWarning, match="own_data:load: train: float images are kept as uint8, so they are rounded"):
        given((part, FORMS["tensors"]))


GOOD = FORMS["tensors"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "gives a NoneType; expected (train, test), each"),
        (GOOD[0], "gives a Tensor; expected"),
        ((GOOD, GOOD, GOOD), "gives a tuple of 3; expected"),
        (GOOD, "train is a Tensor; expected"),
        ({"train": GOOD, "test": GOOD}, "gives a dict; expected"),
        (({"images": 1}, GOOD), "train is a dict; expected"),
        ((iter([GOOD]), GOOD), "train is a list_iterator; expected"),
        ((GOOD, (PIXELS[:3], LABELS)), "test: 3 images and 12 labels"),
        (((PIXELS[:0], LABELS[:0]), GOOD), "train: images of shape [0, 3, 5, 4]; expected [N, H, W]"),
        (((PIXELS[:0] / 255, LABELS[:0]), GOOD), "train: images of shape [0, 3, 5, 4]; expected [N, H, W]"),
        (((PIXELS - 1.0, LABELS), GOOD), "train: float images from -1 to 254; expected [0, 1], as"),
        (((PIXELS / 0.0, LABELS), GOOD), "expected [0, 1]"),
        (((PIXELS.int(), LABELS), GOOD), "train: images of torch.int32; expected uint8"),
        (((PIXELS[0, 0], LABELS), GOOD), "images of shape [5, 4]"),
        (((["a.png"] * 12, LABELS), GOOD), "train: its images are no array of numbers"),
        (
            ((PIXELS, LABELS - 1), GOOD),
            "train: labels of shape [12] and torch.int64; expected [N] whole",
        ),
        (((PIXELS, LABELS + 0.5), GOOD), "whole numbers from 0"),
        (((PIXELS, torch.eye(12)), GOOD), "labels of shape [12, 12]"),
        ((Listed([PIXELS[0]]), GOOD), "train: its item 0 is not (image, label): ValueError"),
        ((Listed([(PIXELS[0], 1)], ["one"]), GOOD), "the label 2 has no name: its attribute classes has 1"),
        ((GOOD, (PIXELS[:, :1], LABELS)), "training images are [3, 5, 4], test images [1, 5, 4]"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(found: Any, message: str, given: Given) -> None:
    with pytest.raises(InputError, match="^--dataset own_data:load.*" + re.escape(message)) as refused:
        given(found)
    assert "\n" not in str(refused.value)


def test_it_is_split_and_normalised_as_any_other(given: Given) -> None:
    given((GOOD, GOOD))
    loaded = data.load(DataConfig(dataset="own_data:load", image_size=6), seed=0)
    assert (loaded.name, len(loaded.train), len(loaded.validation), len(loaded.test)) == ("own_data:load", 11, 1, 12)
    assert loaded.image_shape == (3, 6, 6)


def test_names_without_a_function_are_refused_as_before() -> None:
    with pytest.raises(InputError, match=r'did you mean "digits"\?; there are: auto, .*, and module:function'):
        data.load(DataConfig(dataset="digit"), seed=0)
    with pytest.raises(InputError, match="--dataset no_such_data:load: 'no_such_data' cannot be imported"):
        data.load(DataConfig(dataset="no_such_data:load"), seed=0)
