"""The networks whose training steps `pytest bench/` times, with what each figure of theirs has to reach."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases.goals import Goal, goals


@dataclass(frozen=True)
class Network:
    """A network: whole training steps and the memory that they take.

    `goals`: of the cpp backend, by sparsity. `low`: further sparsities, at which the auto backend alone is timed, when
    the full table is asked for. `seconds`: about how long the timed part takes. `full`: timed only when the full table
    is asked for. `sustained`: a step is so short that it is timed among steps of its own, as a training has them, or
    most of it would be to bring back what the other sides' steps have driven out of the caches.
    """

    name: str
    input_shape: tuple[int, int, int, int]
    classes: int
    goals: dict[float, Goal | None]
    low: tuple[float, ...]
    seconds: float
    full: bool = False
    sustained: bool = False

    def __str__(self) -> str:
        library, _, name = self.name.rpartition(":")
        batch, _, height, width = self.input_shape
        return f"{name}-{height}x{width}-batch-{batch}" if library else name


_CIFAR10 = (128, 3, 32, 32)
_TOKENS = (8, 1, 197, 768)
_LOW = (0.2, 0.4)
_NO_3X3 = (0.0, 0.2)


def _of_torchvision(name: str, must: float, aim: float) -> Network:
    """On photographs: 224 pixels, 1000 classes, batch 8."""
    return Network(f"torchvision:{name}", (8, 3, 224, 224), 1000, goals((0.9, must, aim)), (), 60, full=True)


def _of_transformer(name: str, wanted: dict[float, Goal | None], low: tuple[float, ...]) -> Network:
    """In `bench.cases.transformer`, of 1576 tokens."""
    return Network(f"bench.cases.transformer:{name}", _TOKENS, 10, wanted, low, 30, full=True)


NETWORKS = [
    Network("conv4", _CIFAR10, 10, goals((0, 2.3, 2.8), (0.9, 3.7, 5), (0.98, 6, 8)), _LOW, 30),
    Network("vgg16", _CIFAR10, 10, goals((0, 2.2, 2.8), (0.9, 4.5, 6), (0.98, 9, 11)), _LOW, 50),
    Network("resnet20", _CIFAR10, 10, goals((0, 1.6, 2.3), (0.9, 2.1, 3), (0.98, 3, 4)), _LOW, 20),
    Network(
        "lenet-300-100", (60, 1, 28, 28), 10, goals((0.8, 1.4, 2), (0.95, 2.2, 3)), _NO_3X3, 20, True, sustained=True
    ),
    _of_transformer("transformer_block", {}, _NO_3X3),
    _of_transformer("feed_forward", goals((0.9, 4.2, 5.5)), ()),
    _of_torchvision("resnet18", 3, 4),
    _of_torchvision("resnet50", 2.8, 3.5),
    _of_torchvision("mobilenet_v2", 1.5, 2.2),
]
