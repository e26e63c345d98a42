"""The CUDA kernels on a CPU: their own sources, compiled by g++ against device.h here instead of csrc/cuda/device.

`backend()` is the cuda backend with the operators of that build. Tests only: it is slow, and there to show that the
kernels compute the right thing, wait where they have to, and stay within their memory.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lth_sparse.backends.cuda import CudaBackend
from lth_sparse.plans import staging
from lth_sparse.plans.layer_spec import LayerSpec

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
NAME = "cuda_on_host"
SANITIZE = "LTH_SPARSE_SANITIZE"
"""Names sanitizers, as -fsanitize does, that the build is to have."""


def library() -> Path:
    """The build, made when the sources have changed since."""
    include = Path(torch.__file__).parent / "include"
    sanitizers = os.environ.get(SANITIZE, "")
    flags = [
        "-std=c++20", "-O2", "-g", "-fPIC", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas",
        "-DTORCH_TARGET_VERSION=0x020b000000000000", *([f"-fsanitize={sanitizers}"] if sanitizers else []),
        "-I", str(HERE), "-isystem", str(include), "-isystem", str(include / "torch" / "csrc" / "api" / "include"),
    ]  # fmt: skip
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    headers = sorted([*(ROOT / "csrc" / "cuda").rglob("*.h"), *HERE.glob("*.h")])
    digest = hashlib.sha256(" ".join([*compiler, *flags, torch.__version__]).encode())
    for path in [*SOURCES, *headers]:
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "cuda_on_host" / digest.hexdigest()[:16]
    built = folder / "kernels.so"
    if built.exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    objects = [folder / f"{source.stem}.{os.getpid()}.o" for source in SOURCES]

    def compiled(source: Path, target: Path) -> None:
        subprocess.run([*compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(compiled, SOURCES, objects))
    libraries = Path(torch.__file__).parent / "lib"
    partial = folder / f"kernels.{os.getpid()}.part"
    link = [f"-fsanitize={sanitizers}"] if sanitizers else []
    subprocess.run(
        [*compiler, *link, "-shared", *map(str, objects), "-o", str(partial), "-L", str(libraries), "-ltorch",
         "-ltorch_cpu", "-lc10"],
        check=True,
    )  # fmt: skip
    for path in objects:
        path.unlink()
    partial.replace(built)  # Whole at any time, whoever builds it beside us.
    return built


class CudaOnHost(CudaBackend):
    """Computes float32 as it is, or as TF32 when `tf32` says so, as if on `gpu`: by default an H200."""

    name = NAME
    tf32 = False
    gpu = staging.Device(132, 227 * 1024)

    def refuses(self, device: torch.device) -> str:
        return "" if device.type == "cpu" else "the twin of the CUDA kernels runs on the CPU"

    def _tiling(self, *launch: Any) -> staging.Tiling:
        found = super()._tiling(*launch)
        assert found.shared_bytes <= self.gpu.shared_bytes, found
        return found

    def _operators(self) -> Any:
        return torch.ops.lth_sparse_cuda_on_host

    def _device(self, device: torch.device) -> staging.Device:
        return self.gpu

    def _tf32(self, spec: LayerSpec, dtype: torch.dtype) -> bool:
        return dtype == torch.float32 and self.tf32


@cache
def backend() -> CudaOnHost:
    """The backend. The registry does not know it: auto is not to race it."""
    torch.ops.load_library(str(library()))
    return CudaOnHost()
