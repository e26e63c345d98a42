"""An error and the bound that it has to keep, and what was found of one layer, network or training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lth_sparse.backends.base import float32_multiplied_in
from lth_sparse.plans.layer_spec import LayerSpec

TIMES_DENSE = 2.0
"""What an error may be of dense PyTorch's own."""
TF32_EPS = 2.0**-10


@dataclass(frozen=True)
class Judged:
    """An error, relative to the truth, and its bound. Where either is not a number, it is out of bounds."""

    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error keeps its bound."""
        return self.error <= self.bound < math.inf

    @property
    def of_bound(self) -> float:
        """The error over its bound; infinite when either is not a number."""
        if not self.bound < math.inf or math.isnan(self.error):
            return math.inf
        return self.error / self.bound if self.bound > 0 else math.inf if self.error > 0 else 0.0


@dataclass(frozen=True)
class Row:
    """What was found of one layer, of the whole network or of a training, computed by one backend.

    `computed_by`: the backend that really did, for each operation. `milliseconds`: the median of each side that was
    timed. `failed`: why it could not be computed. `notes`: what else a reader should know, such as what was not
    measured.
    """

    subject: str
    sparsity: float
    backend: str
    part: str
    kind: str
    computed_by: str = ""
    judged: Mapping[str, Judged] = field(default_factory=dict)
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it was computed, and every error keeps its bound."""
        return not self.failed and all(judged.holds for judged in self.judged.values())

    @property
    def dense_milliseconds(self) -> float | None:
        """Of dense PyTorch in its faster layout."""
        return min((time for side, time in self.milliseconds.items() if side.startswith("dense")), default=None)

    @property
    def own_milliseconds(self) -> float | None:
        """Of the backend in its faster layout."""
        return min((time for side, time in self.milliseconds.items() if side.startswith("ours")), default=None)

    @property
    def speedup(self) -> float | None:
        """Dense over ours, each in its faster layout; None when it was not timed."""
        dense, own = self.dense_milliseconds, self.own_milliseconds
        return None if dense is None or own is None else dense / own

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; a number that is not finite is null, and its row does not hold."""

        def number(value: float | None) -> float | None:
            return value if value is not None and math.isfinite(value) else None

        return {
            "subject": self.subject,
            "sparsity": self.sparsity,
            "backend": self.backend,
            "part": self.part,
            "kind": self.kind,
            "computed_by": self.computed_by,
            "holds": self.holds,
            "errors": {
                name: {"error": number(each.error), "bound": number(each.bound), "holds": each.holds}
                for name, each in self.judged.items()
            },
            "milliseconds": dict(self.milliseconds),
            "speedup": number(self.speedup),
            "failed": self.failed,
            "notes": list(self.notes),
        }


def relative_norm(found: Tensor, truth: Tensor) -> float:
    """The norm of the difference over that of `truth`; NaN when any entry of either is. 0 when empty."""
    if not truth.numel():
        return 0.0
    scale = truth.norm()
    return float((found.to(truth.dtype) - truth).norm() / torch.where(scale > 0, scale, torch.ones_like(scale)))


def relative(found: Tensor, truth: Tensor) -> float:
    """The largest difference over the largest entry of `truth`; NaN when any entry of either is. 0 when empty."""
    if not truth.numel():
        return 0.0
    scale = truth.abs().max()
    return float((found.to(truth.dtype) - truth).abs().max() / torch.where(scale > 0, scale, torch.ones_like(scale)))


def rounding(dtype: torch.dtype, device: torch.device, spec: LayerSpec) -> float:
    """The spacing at 1 of the numbers that a layer multiplies: of its dtype, or of TF32 where PyTorch allows it."""
    if dtype == torch.float32 and device.type == "cuda" and float32_multiplied_in(spec) == "tf32":
        return TF32_EPS
    return torch.finfo(dtype).eps


def nothing_to_compare(judged: Mapping[str, Judged]) -> list[str]:
    """A note where the bound is not a finite number: then dense PyTorch's own result, or the truth, is not."""
    names = [name for name, each in judged.items() if not math.isfinite(each.bound)]
    return [f"{', '.join(names)}: not finite in dense PyTorch either, so there is nothing to compare"] if names else []
