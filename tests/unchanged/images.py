"""A tiny folder of images: three classes of noise that colour tells apart, in two sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"blue": (60, 60, 150), "green": (60, 150, 60), "red": (150, 60, 60)}
SIZES = ((16, 16), (20, 18))
IMAGES = {"train": 40, "test": 12}
"""Of each class."""


def write(root: Path) -> None:
    """Writes `root/train/<class>/*.png` and `root/test/<class>/*.png`, the same at every call."""
    random = np.random.default_rng(0)
    for part, count in IMAGES.items():
        for name, colour in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-60, 61, (*SIZES[number % len(SIZES)], 3))
                Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
