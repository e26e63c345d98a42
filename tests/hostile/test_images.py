"""Data folders that anybody may have filled: what torchvision makes of an image, or a line with its name."""

import io
import os
import re
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lth_sparse import run
from lth_sparse.data import folder as folders
from lth_sparse.data.registry import loader
from lth_sparse.storage import sealed
from lth_sparse.system.errors import InputError
from tests.memory import peak_memory


def read(folder, image_size=None):
    return loader("folder")(folder, image_size).train.images


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGBX", "CMYK", "YCbCr"])
def test_other_modes_are_as_torchvision_has_them(folder, mode):
    from torchvision.datasets.folder import default_loader

    path = folder / "train" / "a" / "0.tiff"
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (4, 4, 3), np.uint8)).convert(mode).save(path)
    expected = torch.from_numpy(np.array(default_loader(str(path)))).permute(2, 0, 1)
    assert torch.equal(read(folder)[1], expected)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height, pixels):
    """A PNG of these sizes, of so few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(pixels, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def cut(kind):
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(held, kind)
    return held.getvalue()[: held.tell() // 2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"no image, but text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\x03\x04" + b"\0" * 40,
        cut("PNG"),
        cut("JPEG"),
        cut("GIF"),
        cut("TIFF"),
        cut("BMP"),
        cut("WEBP"),
        bomb(20_000, 20_000, b"\0" * 1000),
        bomb(2**31 - 1, 2**31 - 1, b""),
    ],
    ids=lambda content: f"{content[:8]!r} of {len(content)}",
)
def test_what_is_no_whole_image_is_named(folder, content):
    (folder / "train" / "b" / "bad.png").write_bytes(content)
    with peak_memory() as memory, pytest.raises(InputError, match=r"bad\.png is broken"):
        read(folder)
    assert memory.mebibytes < 50


def test_a_line_of_pixels_that_would_be_resized_to_a_huge_image(folder):
    Image.new("RGB", (100_000, 1)).save(folder / "train" / "a" / "line.png")
    with peak_memory() as memory, pytest.raises(InputError, match=r"line\.png is 100000x1: .* take it out"):
        read(folder, 224)
    assert memory.mebibytes < 50
    assert len(read(folder, 8)) == 3


@pytest.mark.parametrize("what", ["nothing", "itself"])
def test_a_link_to_nothing_is_named(folder, what):
    link = folder / "train" / "b" / "link.png"
    link.symlink_to(link if what == "itself" else folder / "missing.png")
    with pytest.raises(InputError, match=r"link\.png cannot be read"):
        read(folder)


def test_links_out_of_the_folder_are_followed_as_torchvision_does(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "more").mkdir()
    for path in (elsewhere / "image.png", elsewhere / "more" / "another.png"):
        Image.new("RGB", (4, 4), "blue").save(path)
    (folder / "train" / "b" / "1.png").symlink_to(elsewhere / "image.png")
    (folder / "train" / "b" / "more").symlink_to(elsewhere / "more")
    assert read(folder)[:, 2, 0, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_back_is_named_before_images_are_read_again_and_again(folder, target):
    (folder / "train" / "b" / "back").symlink_to(target)
    with pytest.raises(InputError, match=r"back is a link to a folder that it lies in"):
        read(folder)


@pytest.mark.parametrize(
    ("place", "name", "what"), [(os, "stat", r"0\.png"), (Image, "open", r"0\.png"), (folders, "ImageFolder", "train")]
)
def test_what_may_not_be_read_is_named(folder, place, name, what, monkeypatch):
    # As root, tests may read anything.
    allowed = getattr(place, name)

    def refused(path, *rest, **named):
        if re.search(what, str(path)):
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(path, *rest, **named)

    monkeypatch.setattr(place, name, refused)
    with pytest.raises(InputError, match=f"{what}.* Permission denied"):
        read(folder)


def test_a_folder_called_as_an_image_is_none(folder):
    (folder / "train" / "b" / "folder.png").mkdir()
    assert len(read(folder)) == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such names")
def test_names_that_are_no_text(folder, tmp_path_factory, monkeypatch, capfd):
    for part in ("train", "test"):
        place = os.path.join(os.fsencode(folder), part.encode(), b"\xff\xfe")
        os.mkdir(place)
        for number in range(20):
            os.link(folder / part / "a" / "0.png", os.path.join(place, b"\x80%d.png" % number))
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    short = ("--rounds", "1", "--iterations", "2", "--backend", "dense", "--controls", "none", "--out", "run")
    network = ("--model", "tests.hostile.corpus:tiny", "--dataset", "folder", "--data-dir", str(folder))
    assert run.main([*network, *short]) == 0, capfd.readouterr().err
    with open(os.path.join(place, b"\x80bad.png"), "wb"):
        pass
    assert run.main([*network, *short[:-1], "other"]) == 2
    assert "bad.png is broken" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("train_labels"),
        lambda tensors: tensors.update(train_labels=tensors["train_labels"] + 10**9),
        lambda tensors: tensors.update(train_labels=tensors["train_labels"].float()),
        lambda tensors: tensors.update(test_images=tensors["test_images"].float()),
        lambda tensors: tensors.update(test_images=tensors["test_images"][:, :1]),
        lambda tensors: tensors.update(test_images=tensors["test_images"][..., :2]),
        lambda tensors: tensors.update(train_images=tensors["train_images"][:0]),
    ],
)
def test_a_cache_that_somebody_else_has_sealed_is_not_believed(folder, change):
    expected = read(folder)
    cache = folder / ".lth_sparse.safetensors"
    tensors, data = sealed.read(cache)
    change(tensors)
    sealed.write(cache, tensors, data)
    assert torch.equal(read(folder), expected)
    assert sealed.read(cache)[0].keys() == {"train_images", "train_labels", "test_images", "test_labels"}


def test_a_named_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "train" / "b" / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is no regular file"):
        read(folder)
