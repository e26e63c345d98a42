"""What Nsight Compute says of the CUDA kernels, and what it is given to look at: `python -m bench.gpu.profile c64`.

That runs one layer's passes a few times over, in TF32, channels first, at 98 % sparsity with a random mask.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from bench.cases.gpu import LAYERS
from bench.gpu.checks import finished
from bench.gpu.precision import set_precision
from bench.sides.sparse import sparse_layer

REPEATS = 4


def profiled(rows: Sequence[dict[str, Any]], seconds: float) -> list[str]:
    """What ncu, if it is there, says of the layer that takes longest among the measured `rows`."""
    of_cuda = [row for row in rows if row["side"] == "cuda" and row["precision"] == "tf32" and row["sparsity"] == 0.98]
    if not of_cuda:
        return ["nothing to profile: the cuda backend was not measured in tf32 at 98 %"]
    worst = max(of_cuda, key=lambda row: row["total"])
    command = [
        "ncu", "--clock-control", "none", "--section", "SpeedOfLight", "--section", "MemoryWorkloadAnalysis",
        "--section", "WarpStateStats", "--kernel-name", "regex:correlation_kernel|grad_weight_kernel",
        "--launch-skip", "3", "--launch-count", "3", sys.executable, "-m", "bench.gpu.profile", worst["layer"],
    ]  # fmt: skip
    try:
        status, output = finished(command, seconds)
    except OSError as error:
        return [f"not profiled: {error}"]
    about = f"{worst['layer']}, tf32, contiguous, a random mask at 98 %: ncu's exit status {status}"
    return [about, *[line for line in output.splitlines() if line.strip()][-120:]]


def main(name: str) -> None:
    """Runs the layer of that name."""
    (layer,) = [each for each in LAYERS if each.name == name]
    set_precision("tf32")
    spec, device = layer.spec, torch.device("cuda")
    x, weight = torch.randn(layer.input_shape, device=device), torch.randn(spec.weight_shape, device=device)
    grad_out = torch.randn(layer.output_shape, device=device)
    mask = torch.rand(spec.weight_shape, device=device) >= 0.98
    for _ in range(REPEATS):
        for call in sparse_layer("cuda", spec, mask, x, weight, grad_out).values():
            call()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1])
