"""The layers that `pytest bench/` times, with what each figure of theirs has to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.cases.goals import Goal, goals
from lth_sparse.plans.layer_spec import LayerSpec


@dataclass(frozen=True)
class Layer:
    """A layer and what it is given; `goals` by sparsity, for the module by the cpp backend, None where none was set.

    `operator_goals`: of its operators alone. `packing`: packing a mask is timed too. `avx2`: both sides are limited to
    AVX2. `seconds`: about how long the timed part takes. `full`: timed only when the full table is asked for.
    """

    name: str
    spec: LayerSpec
    input_shape: tuple[int, ...]
    goals: dict[float, Goal | None]
    seconds: float
    packing: bool = False
    avx2: bool = False
    full: bool = False
    operator_goals: Mapping[float, Goal | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _conv(channels: int, filters: int, kernel: int = 3, stride: int = 1) -> LayerSpec:
    return LayerSpec("conv2d", channels, filters, (kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2)


# Name -> (channels, height and width).
_SQUARE = {"c64": (64, 32), "c128": (128, 16), "c256": (256, 8), "c512": (512, 4)}
# Up to 80 % what Winograd's algorithm reaches, beyond what the sparse kernels do.
_BATCH_128 = {
    "c64": goals((0, 2.7, 3.2), (0.5, 2.7, 3.2), (0.8, 2.7, 3.2), (0.9, 4.3, 5), (0.95, 5.6, 7.5), (0.98, 7.0, 9)),
    "c128": goals(
        (0, 2.75, 3.25), (0.5, 2.75, 3.25), (0.8, 2.75, 3.25), (0.9, 4.6, 6), (0.95, 6.6, 9), (0.98, 9.5, 13)
    ),
    "c256": goals((0, 2.6, 3.05), (0.5, 2.6, 3.05), (0.8, 2.6, 3.05), (0.9, 5.0, 6), (0.95, 7.5, 9), (0.98, 12, 16)),
    "c512": goals((0, 2.5, 2.9), (0.5, 2.5, 2.9), (0.8, 2.5, 2.9), (0.9, 5.8, 8), (0.95, 9.8, 15), (0.98, 19, 30)),
}
# Layers between two widths, and ResNet-20's: (channels, filters, height and width, must, aim), at 0 and 50 %.
_FEW_PRUNED = {
    "c64-c128": (64, 128, 16, 2.55, 3.1),
    "c128-c256": (128, 256, 8, 2.5, 3.0),
    "c256-c512": (256, 512, 4, 2.4, 2.85),
    "c16": (16, 16, 32, 1.7, 2.2),
    "c32": (32, 32, 16, 2.2, 2.5),
    "c64-8x8": (64, 64, 8, 2.4, 2.7),
}
_OPERATORS = {"c512": goals((0.9, 5.0, 8), (0.95, 9.5, 15), (0.98, 20, 30))}
_BATCH_1 = goals((0.9, 1.8, 3), (0.95, 3.3, 4.5), (0.98, 4.6, 7))
_AVX2 = goals((0, 2.7, 3.1), (0.9, 3.8, 5), (0.95, 6, 8), (0.98, 10, 14))
_LINEAR = goals((0.9, 2.9, 4), (0.95, 4.3, 6.5), (0.98, 6, 11))
_POINTWISE = goals((0.9, 1.15, 2.5), (0.95, 1.3, 3.5), (0.98, 1.35, 4))
_LITTLE: dict[float, Goal | None] = {0.8: None}
_NO_GOAL: dict[float, Goal | None] = {0.9: None}
_FEW_ROWS: dict[float, Goal | None] = {0.8: None, 0.9: None, 0.95: None}
# The 3x3 layers of a ResNet-50, at a batch size that its images allow: (channels, filters, stride, height and width).
_RESNET = [
    (64, 64, 1, 56),
    (128, 128, 1, 28),
    (256, 256, 1, 14),
    (512, 512, 1, 7),
    (128, 128, 2, 56),
    (256, 256, 2, 28),
    (512, 512, 2, 14),
]

LAYERS = [
    *(
        Layer(
            name,
            _conv(channels, channels),
            (128, channels, size, size),
            _BATCH_128[name],
            15,
            packing=True,
            operator_goals=_OPERATORS.get(name, {}),
        )
        for name, (channels, size) in _SQUARE.items()
    ),
    *(
        Layer(
            name,
            _conv(channels, filters),
            (128, channels, size, size),
            goals((0, must, aim), (0.5, must, aim)) | _LITTLE,
            4,
            full=True,
        )
        for name, (channels, filters, size, must, aim) in _FEW_PRUNED.items()
    ),
    Layer("linear", LayerSpec("linear", 4096, 256), (128, 4096), _LINEAR, 3, packing=True),
    *(
        Layer(f"linear-4096-batch-{batch}", LayerSpec("linear", 4096, 4096), (batch, 4096), _FEW_ROWS, 2, full=True)
        for batch in (1, 4, 16)
    ),
    Layer("1x1", _conv(64, 256, kernel=1), (128, 64, 16, 16), _POINTWISE, 8, packing=True),
    *(
        Layer(f"{name}-batch-1", _conv(channels, channels), (1, channels, size, size), _BATCH_1, 2, full=True)
        for name, (channels, size) in _SQUARE.items()
    ),
    *(
        Layer(f"{name}-avx2", _conv(channels, channels), (128, channels, size, size), _AVX2, 6, avx2=True, full=True)
        for name, (channels, size) in _SQUARE.items()
        if name != "c64"
    ),
    *(
        Layer(f"{name}-batch-{batch}", _conv(channels, channels), (batch, channels, size, size), _NO_GOAL, 2, full=True)
        for batch in (8, 33)
        for name, (channels, size) in _SQUARE.items()
    ),
    *(
        Layer(
            f"c{channels}-{size}x{size}" + ("-stride-2" if stride == 2 else ""),
            _conv(channels, filters, stride=stride),
            (32, channels, size, size),
            _NO_GOAL,
            4,
            full=True,
        )
        for channels, filters, stride, size in _RESNET
    ),
]
