"""Which backends are verified, and which of them can be timed here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lth_sparse.backends import triton
from lth_sparse.backends.registry import backends, get, resolve
from lth_sparse.system.errors import BackendError, InputError
from lth_sparse.system.messages import say

ALL = "all"
"""The name that stands for every backend that works here."""


def contenders(names: Sequence[str], device: torch.device) -> tuple[list[str], list[str]]:
    """The backends to verify, and a line for each that `all` has to leave out. Raises BackendError for one that is
    asked for by its name."""
    if not names:
        raise InputError(f"--backend is empty: give names with commas, or {ALL}")
    if ALL not in names:
        if "triton" in names and device.type == "cpu":
            triton.interpret()
            say("Triton's interpreter runs its kernels on the CPU, thousands of times slower: choose a small network")
        for name in names:
            if reason := get(resolve(name)).refuses(device):
                raise BackendError(f'backend "{name}" cannot be used here: {reason}')
        return list(names), []
    reasons = {name: reason or get(name).refuses(device) for name, reason in backends().items()}
    return (
        [name for name, reason in reasons.items() if not reason],
        [f"{name}: {reason}" for name, reason in reasons.items() if reason],
    )


def not_timed(backend: str) -> str:
    """Why times of this backend would mean nothing here; "" where they do."""
    return "Triton's interpreter runs the kernels" if backend == "triton" and triton.interpreted() else ""
