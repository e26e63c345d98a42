"""Engines of others, made of an ONNX file, with as many threads as PyTorch has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def onnxruntime_session(path: Path) -> Any:
    """onnxruntime's, on the CPU, with all of its optimizations of the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning into the next side's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def deepsparse_engine(path: Path, batch: int) -> Any:
    """DeepSparse's, compiled for the batch; it tells nobody of it."""
    os.environ.setdefault("NM_DISABLE_ANALYTICS", "True")
    import deepsparse

    return deepsparse.compile_model(str(path), batch_size=batch, num_cores=torch.get_num_threads())
