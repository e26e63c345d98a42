"""What the kinds of kernels of the cpp backend have in common: where they run, and a plan that is the pattern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators
from lth_sparse.backends.base import Plan
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


class CppKernels:
    """Kernels of csrc/cpu, which read the pattern as it is where they say nothing else; see `Backend`."""

    def refuses(self, device: torch.device) -> str:
        """Every device but the CPU."""
        return cpu_operators.refuses(device)

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        """The pattern."""
        return Plan(spec, pattern)

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> Plan:
        """The plan again."""
        return Plan.from_tensors(tensors, spec)
