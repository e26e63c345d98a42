"""What a GPU box runs in processes of their own: the build, the tests, compute-sanitizer.

A process that is out of time is ended with all that it has started: nothing may be on the GPU beside what is timed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 150
SUITES: dict[str, tuple[float, tuple[str, ...]]] = {
    "cuda": (150, ("tests/gpu/test_gpu.py", "-k", "cuda")),
    "triton": (150, ("tests/gpu/test_gpu.py", "-k", "not cuda")),
    "training": (150, ("tests/gpu/test_gpu_training.py",)),
}
"""Seconds and arguments of pytest, for what is tested before anything is measured. A backend has one of its name."""
_KERNEL_TESTS = ("tests/kernels/test_triton_kernels.py", "tests/plans/test_column_blocks.py")
LATE_SUITES: dict[str, tuple[float, tuple[str, ...]]] = {"kernels": (90, (*_KERNEL_TESTS, "-m", "not alone"))}
REHEARSED_SUITES = {"cuda": SUITES["cuda"], "plan": (120.0, ("tests/plans/test_column_blocks.py",))}
SANITIZER_SECONDS = 120
SANITIZED = ("tests/gpu/test_gpu.py", "-k", "cuda and errors and (strided or linear)")
"""Of the CUDA kernels, whose memory and barriers are their own affair: Triton's compiler would take all the time."""
VERIFY_SECONDS = 60
_WORKERS = "4"
"""Processes of a suite, where pytest-xdist is there: they compile."""
_NEEDS = {"tests/kernels/test_triton_kernels.py": "hypothesis", "tests/plans/test_column_blocks.py": "hypothesis"}
_BROKEN = re.compile("CUDA error|illegal memory access|misaligned address|unspecified launch failure")


def finished(command: Sequence[str], seconds: float, **environment: str) -> tuple[int | None, str]:
    """(exit status, standard output and error); the status is None when the time was up."""
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output


def build() -> list[str]:
    """Installs the checkout without a network, with the CUDA kernels or else without; gives what went wrong."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "-e", "."]
    status, output = finished(command, BUILD_SECONDS, LTH_SPARSE_CUDA="1")
    if status == 0:
        return []
    lines = output.splitlines()
    said = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)][:20] + lines[-10:]
    # What was built before is not this commit's.
    for built in (ROOT / "lth_sparse").glob("_cuda*.so"):
        built.unlink()
    again, _ = finished(command, BUILD_SECONDS, LTH_SPARSE_CUDA="0")
    reason = f"not finished within {BUILD_SECONDS} s" if status is None else f"exit status {status}"
    without = "installed" if again == 0 else "not installed"
    return [f"with the CUDA kernels: {reason}; without them: {without}", *said]


def tested(arguments: Sequence[str], seconds: float, *before: str, **environment: str) -> str:
    """pytest's closing line and what failed. `before`: a command that runs it, such as compute-sanitizer."""
    missing = {name for name, needed in _NEEDS.items() if importlib.util.find_spec(needed) is None}
    left = [argument for argument in arguments if argument not in missing]
    if not any(argument.endswith(".py") for argument in left):
        return f"not run: {', '.join(sorted(missing))} need hypothesis, which is not installed"
    command = [*before, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *left]
    if not before and importlib.util.find_spec("xdist") is not None:
        command += ["-n", _WORKERS]
    try:
        status, output = finished(command, seconds, **environment)
    except OSError as error:
        return f"not run: {error}"
    lines = [line for line in output.splitlines() if line.strip()]
    if status is None:
        return f"not finished within {seconds:.0f} s: {' '.join(output.split()[-20:])}"
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "========= ERROR SUMMARY"))][:10]
    broken = [line for line in lines if _BROKEN.search(line)][:3]
    closing = [line for line in lines if re.search(r"\d+ (passed|failed|skipped|error)", line)]
    return "; ".join([*closing[-1:], *failed, *broken]) or f"exit status {status}: {lines[-1] if lines else ''}"


def verified(device: str, backends: Sequence[str], seconds: float) -> str:
    """The closing line of `python -m lth_sparse.verify`, on conv4, or on a small network where kernels are
    interpreted."""
    model = ("conv4", "0.95") if device == "cuda" else ("lenet-300-100", "0.9")
    command = [
        sys.executable, "-m", "lth_sparse.verify", "--device", device, "--backend", ",".join(backends),
        "--model", model[0], "--sparsity", model[1], "--batch-size", "8" if device == "cpu" else "128",
    ]  # fmt: skip
    status, output = finished(command, seconds)
    if status is None:
        return f"not finished within {seconds:.0f} s"
    lines = [line for line in output.splitlines() if line.strip()]
    return (lines[-1] if lines else "") if status in (0, 1) else f"exit status {status}: {' '.join(lines[-3:])}"


def within_bounds(said: str) -> bool:
    """Whether that closing line says that everything is; "" where there was no time for it."""
    return said == "" or re.match(r"all of \d+ rows", said) is not None


def passed(said: str) -> bool:
    """Whether a suite's closing line is that of one that ran and passed."""
    return re.search(r"\d+ passed", said) is not None and re.search(r"failed|error|not finished", said) is None


def broke_the_gpu(said: str) -> bool:
    """Whether a suite ended in an error after which a process can compute no more."""
    return _BROKEN.search(said) is not None


def sanitized(tool: str, seconds: float) -> str:
    """What compute-sanitizer's memcheck or racecheck says of the CUDA kernels."""
    # Without its cache PyTorch allocates each tensor by itself, so that reading beyond one is seen.
    return tested(
        SANITIZED, seconds, "compute-sanitizer", "--tool", tool, "--target-processes", "all",
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )  # fmt: skip
