"""What is installed here and what it runs on, section by section, as (name, words) for a person."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from lth_sparse import __version__
from lth_sparse.backends import autograd_library, extension, triton, winograd
from lth_sparse.backends.registry import backends
from lth_sparse.storage import environment

Facts = list[tuple[str, str]]

PACKAGES = ("triton", "numpy", "safetensors", "matplotlib", "scikit-learn", "tqdm")
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "asimdhp", "sve", "sve2",
)  # fmt: skip
"""Of a processor, that a kernel of ours or of PyTorch's asks for."""
VARIABLES = re.compile(
    "LTH_SPARSE_|TRITON_|OMP_|GOMP_|KMP_|MKL_|DNNL_|ONEDNN_|OPENBLAS_|ATEN_|PYTORCH_|TORCH_|CUDA_|CUBLAS_|CUDNN_"
    "|NVIDIA_|MALLOC_|GLIBC_TUNABLES$|LD_PRELOAD$|LD_LIBRARY_PATH$|PYTHONPATH$|CXX$|CC$"
)
EXTENSIONS = {"cpp": "_cpu", "cuda": "_cuda"}
SECONDS = 10.0
"""For another program to answer."""


def versions() -> Facts:
    """Of this package, Python, the packages that it uses, and nvcc."""
    here = environment.describe(torch.device("cpu"), __version__)
    return [
        ("lth_sparse", f"{__version__}, in {Path(__file__).resolve().parents[1]}"),
        ("commit", here["commit"] or "not known: this is no checkout"),
        ("python", f"{sys.version.split()[0]}, {sys.executable}"),
        ("torch", f"{torch.__version__}, built with {_torch_cuda()}"),
        ("torchvision", here["torchvision"]),
        *[(name, environment.version_of(name) or "not installed") for name in PACKAGES],
        ("nvcc", _nvcc()),
        ("c++", _first_line([os.environ.get("CXX", "c++"), "--version"])),
        ("platform", here["platform"]),
    ]


def _torch_cuda() -> str:
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    path = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if path is None:
        return "not found on the PATH, nor under CUDA_HOME"
    found = re.search(r"release [\d.]+, V[\d.]+", _output([path, "--version"]))
    return f"{found[0] if found else 'of an unknown version'}, {path}"


def processor() -> Facts:
    """Name, cores, features, memory; threads and allocator of this process."""
    here = environment.describe(torch.device("cpu"), __version__)
    features = environment.processor_features()
    known = [name for name in FEATURES if name in features]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("processor", f"{here['processor']}; this process may use {cores} cores of {os.cpu_count()}"),
        ("features", ", ".join(known) or "not known"),
        ("PyTorch uses", torch.backends.cpu.get_cpu_capability()),
        ("memory", f"{memory:.1f} GiB"),
        ("threads", f"{here['threads']}, between operators {torch.get_num_interop_threads()}"),
        ("allocator", f"{here['allocator']}; verify and run keep freed memory where they can"),
    ]


def gpus() -> Facts:
    """Name, compute capability and memory of each, and the driver."""
    driver = _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    if not torch.cuda.is_available():
        why = "torch.cuda.is_available() is False" if torch.version.cuda else "PyTorch is built without CUDA"
        return [("GPU", f"none: {why}"), ("driver", driver)]
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, _ = torch.cuda.mem_get_info(index)
        found.append(
            (
                f"cuda:{index}",
                f"{about.name}, compute capability {about.major}.{about.minor}, {about.multi_processor_count} "
                f"multiprocessors, {about.total_memory / 2**30:.1f} GiB, {free / 2**30:.1f} free",
            )
        )
    return [*found, ("driver", driver), ("cuDNN", str(torch.backends.cudnn.version()))]


def variables() -> Facts:
    """The environment variables that change what is computed, or how fast."""
    found = [(name, value) for name, value in sorted(os.environ.items()) if VARIABLES.match(name)]
    return found or [("none", "of those that matter is set")]


def backends_here() -> Facts:
    """Of each backend whether it works, why it does not, and how it was built."""
    return [
        (name, "; ".join([f"does not work here: {reason}" if reason else "works", *_built(name)]))
        for name, reason in backends().items()
    ]


def _built(name: str) -> list[str]:
    if name == "triton" and not backends()[name] and triton.interpreted():
        return ["in Triton's interpreter, which is for checking only"]
    if name not in EXTENSIONS:
        return []
    library = EXTENSIONS[name]
    path = extension.built(library)
    if path is None:
        return []
    when = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).date().isoformat()
    said = [f"{path.name} of {when}, compiled by {extension.compiler(library) or 'an unknown compiler'}"]
    if name == "cuda":
        return [*said, f"for {', '.join(extension.architectures(library)) or 'unknown GPUs'}"]
    said.append(f"with kernels for {', '.join(extension.instruction_sets(library)) or 'unknown instruction sets'}")
    if not backends()[name]:
        said.append(f"of which {torch.ops.lth_sparse_cpu.instruction_set()} runs")
        said.append(_winograd())
        said.append(_autograd_node())
    return said


def _autograd_node() -> str:
    """Whether layers have their node of autograd's graph in C++."""
    if reason := autograd_library.UNUSABLE:
        return f"without the autograd node in C++, so that small layers spend their time in Python: {reason}"
    return "with the autograd node in C++"


def _winograd() -> str:
    """How far Winograd's algorithm may go, and what that costs."""
    largest = winograd.setting()
    if largest == "off":
        return "Winograd's algorithm is off"
    return (
        f"3x3 layers in which little is pruned by Winograd's algorithm, tiles of up to {largest}, whose float32 is up "
        f"to {winograd.ERROR[largest]:.0e} of the largest result off ({winograd.VARIABLE})"
    )


def _first_line(command: Sequence[str]) -> str:
    return (_output(command).splitlines() or ["no answer"])[0]


def _output(command: Sequence[str]) -> str:
    """What a program prints, or that it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        return f"{command[0]} is not there"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return (done.stdout or done.stderr).strip()
