"""What lies between convolutions, as `pytest bench/` times it, with what each figure has to reach."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases.goals import Goal

PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Activation:
    """BatchNorm if `norm`, an addition if `adds`, `clamp`, and a 2x2 max-pool if `pools`, on images of `shape`.

    `clamp`: "ReLU", "ReLU6" or "" for none. `shape`: (N, C, H, W). `goal`: of each pass of the fused operator. `full`:
    timed only when the full table is asked for.
    """

    layer: str
    shape: tuple[int, int, int, int]
    norm: bool = True
    adds: bool = False
    clamp: str = "ReLU"
    pools: bool = False
    goal: Goal | None = None
    full: bool = False

    @property
    def name(self) -> str:
        """What is computed, and after which layer."""
        steps = (("BatchNorm", self.norm), ("addition", self.adds), (self.clamp, self.clamp), ("max-pool", self.pools))
        return f"{self.layer}: {' + '.join(step for step, there in steps if there)}"

    def __str__(self) -> str:
        return self.name.replace(": ", "-").replace(" + ", "-")


_GOAL = Goal(1.54, 2.0)
"""0.65 and 0.5 of the time."""
_SQUARE = {"c64": (64, 32), "c128": (128, 16), "c256": (256, 8)}


def _images(layer: str) -> tuple[int, int, int, int]:
    channels, size = _SQUARE[layer]
    return 128, channels, size, size


ACTIVATIONS = [
    *(Activation(layer, _images(layer), goal=_GOAL) for layer in _SQUARE),
    Activation("c64", _images("c64"), adds=True, full=True),
    Activation("c64", _images("c64"), clamp="ReLU6", full=True),
    Activation("c64", _images("c64"), clamp="", full=True),
    Activation("c64", _images("c64"), pools=True),
    Activation("c64", _images("c64"), norm=False, pools=True),
]
