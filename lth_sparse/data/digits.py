"""scikit-learn's digits: 1,797 real 8x8 images of handwritten digits, inside its wheel (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from lth_sparse.data.dataset import Source, Split
from lth_sparse.data.registry import register
from lth_sparse.system.seeding import generator

TEST_FRACTION = 5
LARGEST_VALUE = 16


@register("digits")
def digits(data_dir: Path, image_size: int | None) -> Source:
    """Every fifth image of a fixed shuffle is the test set: it belongs to the data, so no seed of a run moves it."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / LARGEST_VALUE).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[order[::TEST_FRACTION]] = True
    return Source(
        Split(images[~test], labels[~test]),
        Split(images[test], labels[test]),
        tuple(str(name) for name in bunch.target_names),
    )
