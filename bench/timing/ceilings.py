"""What the machine can do at most, measured in about two seconds: the roof that times are held against."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.timing import stopwatch

SOURCE = Path(__file__).with_name("fma_peak.cpp")
REPEATS = 1_000_000
"""Of the loop in `SOURCE`: a thread takes about 4 ms for them."""
TRIES = 40
FLOATS = 2**26
"""Of an array that is copied: 256 MiB, which no cache holds."""
TRANSFERS = 8
PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""
PRODUCTS = 5


@dataclass(frozen=True)
class Ceilings:
    """Each the best of many tries, on all threads: single-precision GFLOP/s, and GB/s read and written together."""

    fma_gflops: float
    """Of a loop of fused multiply-adds in registers (a CPU with a C++ compiler), or else of torch.mm, a library's
    answer, which stays some way below the peak: the higher of the two. On a GPU torch.mm, in TF32 where PyTorch may."""
    bandwidth_gbs: float
    """Of copying and of adding large arrays, each byte that is named counted once: a cache line that is fetched only
    to be overwritten is not."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def measure(device: torch.device) -> Ceilings:
    """Of `device`, with as many threads as PyTorch has."""
    peaks = [_product_gflops(device)]
    if device.type == "cpu" and (loop := _compiled_loop()):
        peaks.append(max(_loop_gflops(loop) for _ in range(TRIES)))
    return Ceilings(round(max(peaks), 1), round(_bandwidth_gbs(device), 1))


def _product_gflops(device: torch.device) -> float:
    size = PRODUCT[device.type]
    a, b = torch.randn(2, size, size, device=device)
    out = torch.empty_like(a)
    return 2 * size**3 / _least_seconds(lambda: torch.mm(a, b, out=out), device, PRODUCTS) / 1e9


def _bandwidth_gbs(device: torch.device) -> float:
    a, b, c = torch.ones(3, FLOATS, device=device)
    array = a.numel() * a.element_size()
    copy = 2 * array / _least_seconds(lambda: b.copy_(a), device, TRANSFERS)
    add = 3 * array / _least_seconds(lambda: torch.add(a, b, out=c), device, TRANSFERS)
    return max(copy, add) / 1e9


def _least_seconds(call: stopwatch.Call, device: torch.device, tries: int) -> float:
    watch = stopwatch.of(device)
    prepared = watch.prepared(call)
    return min(watch.seconds(prepared) for _ in range(tries))


def _compiled_loop() -> Any:
    """The function of `SOURCE` for the instruction set that PyTorch uses here; None where nothing compiles it."""
    architecture = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}.get(torch.backends.cpu.get_cpu_capability(), "native")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "fma_peak.so")
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        options = ["-O3", f"-march={architecture}", "-ffp-contract=fast", "-shared", "-fPIC"]
        try:
            subprocess.run([*compiler, *options, str(SOURCE), "-o", str(library)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        loop = ctypes.CDLL(str(library)).multiply_add
    loop.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float, ctypes.POINTER(ctypes.c_float)]
    loop.restype = ctypes.c_double
    return loop


def _loop_gflops(loop: Any) -> float:
    """Of one run in every thread. A call by ctypes lets the other threads run."""
    operations: list[float] = []
    outs = [ctypes.c_float() for _ in range(torch.get_num_threads())]

    def run(out: ctypes.c_float) -> None:
        operations.append(loop(REPEATS, 0.5, 1.0, ctypes.byref(out)))

    threads = [threading.Thread(target=run, args=(out,)) for out in outs]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(operations) / (time.perf_counter() - began) / 1e9
