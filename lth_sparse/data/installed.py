"""Fashion-MNIST as Debian and Ubuntu install it: `apt-get install dataset-fashion-mnist`."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from torchvision.datasets.mnist import FashionMNIST, read_image_file, read_label_file

from lth_sparse.data.dataset import Source, Split

FOLDER = Path("/usr/share/datasets/fashion-mnist")
PREFIXES = ("train", "t10k")


def fashion_mnist() -> Source | None:
    """The package's images, or None where it is not installed."""
    if not all((FOLDER / f"{prefix}-images-idx3-ubyte.gz").is_file() for prefix in PREFIXES):
        return None
    with tempfile.TemporaryDirectory() as folder:
        train, test = (_read(prefix, Path(folder)) for prefix in PREFIXES)
    return Source(train, test, tuple(FashionMNIST.classes))


def _read(prefix: str, folder: Path) -> Split:
    found = {}
    for kind, read in (("images-idx3", read_image_file), ("labels-idx1", read_label_file)):
        name = f"{prefix}-{kind}-ubyte"
        (folder / name).write_bytes(gzip.decompress((FOLDER / f"{name}.gz").read_bytes()))
        found[kind] = read(str(folder / name))
    return Split(found["images-idx3"][:, None].contiguous(), found["labels-idx1"].long())
