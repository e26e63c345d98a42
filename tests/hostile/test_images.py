"""Data folders that anybody may have filled: what torchvision makes of an image, or a line with its name."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from lth_sparse.data.registry import loader
from lth_sparse.system.errors import InputError


def read(folder):
    return loader("folder")(folder, None).train.images


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            Image.new("RGB", (4, 4), "red").save(tmp_path / part / label / "0.png")
    return tmp_path


def test_16_bits_of_grey_keep_their_shades(folder):
    grey = np.array([[0, 255, 256, 65535]] * 4, np.uint16)
    Image.fromarray(grey).save(folder / "train" / "a" / "0.png")
    expected = torch.tensor([0, 0, 1, 255], dtype=torch.uint8).expand(3, 4, 4)
    assert torch.equal(read(folder)[0], expected)


@pytest.mark.parametrize(
    ("dtype", "what"), [(np.float32, "floating-point numbers"), (np.int32, "32-bit whole numbers")]
)
def test_pixels_without_a_range_are_refused_by_name(folder, dtype, what):
    Image.fromarray(np.ones((4, 4), dtype)).save(folder / "train" / "a" / "0.tiff")
    with pytest.raises(InputError, match=rf"0\.tiff has pixels that are {what}"):
        read(folder)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_as_torchvision_has_them(folder, mode):
    from torchvision.datasets.folder import default_loader

    path = folder / "train" / "a" / "0.tiff"
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (4, 4, 3), np.uint8)).convert(mode).save(path)
    expected = torch.from_numpy(np.array(default_loader(str(path)))).permute(2, 0, 1)
    assert torch.equal(read(folder)[1], expected)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_named(folder, content):
    (folder / "train" / "b" / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png is broken"):
        read(folder)


def test_a_named_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "train" / "b" / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is no regular file"):
        read(folder)
