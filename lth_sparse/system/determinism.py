"""The same bits again, on a GPU too."""

from __future__ import annotations

import os

import torch


def make_deterministic() -> None:
    """Makes a GPU give the same bits again, as a CPU does by itself. Has to come before the first use of the GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor, outputs and workspaces included, before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
