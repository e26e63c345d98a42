"""Builds the C++ and CUDA extensions when the means are there; the rest is in pyproject.toml.

kernels/ is installed as `lth_sparse.kernels`: PyPI has a package called `kernels`, so no module of that name of ours
may lie at the top level.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"
"""One binary for every torch from 2.11 and every Python from 3.10 on."""
CUDA_SWITCH = "LTH_SPARSE_CUDA"
"""1 builds the CUDA kernels or fails, 0 leaves them out; otherwise they are built where nvcc and a CUDA torch are."""
GPUS = "8.0;9.0+PTX"


def say(text: str) -> None:
    print(f"lth_sparse: {text}", file=sys.stderr)


def compiler() -> str | None:
    """The C++ compiler that PyTorch's build would call, or None when it is not there."""
    return shutil.which(shlex.split(os.environ.get("CXX", "c++"))[0])


def cuda_home() -> str | None:
    """Where the CUDA toolkit lies, by its own account: an nvcc on the path may be a script that calls it."""
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return home if shutil.which("nvcc", path=f"{home}/bin") else None
    if shutil.which("nvcc") is None:
        usual = "/usr/local/cuda"
        return usual if shutil.which("nvcc", path=f"{usual}/bin") else None
    asked = subprocess.run(["nvcc", "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    found = re.search(r"^#\$ TOP=(.*)$", asked.stderr, re.MULTILINE)
    return str(Path(found[1]).resolve()) if found else None


def sources_flag() -> str:
    """Of which sources the libraries are that call each other past the stable ABI: kernel_table.h."""
    csrc, digest = ROOT / "csrc", hashlib.sha256()
    structures = ("correlation.h", "dense_weight.h", "element.h")
    for path in sorted([*csrc.glob("*.h"), *(path for path in csrc.glob("cpu/*.h") if path.name in structures)]):
        digest.update(path.read_bytes())
    return f'-DLTH_SPARSE_SOURCES="{digest.hexdigest()[:16]}"'


def autograd_extension() -> Any:
    """csrc/autograd, by PyTorch's full ABI: for the torch and the Python that it is built with, and no other."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "lth_sparse._autograd",
        [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc" / "autograd").glob("*.cpp"))],
        extra_compile_args={
            "cxx": ["-O2", "-std=c++20", "-g0", sources_flag(), f'-DLTH_SPARSE_TORCH="{torch.__version__}"']
        },
        # Without it the same is done in Python.
        optional=True,
    )


def cpp_extension() -> Any:
    """csrc/cpu and its operators."""
    from torch.utils.cpp_extension import CppExtension

    sources = [*sorted((ROOT / "csrc").glob("*.cpp")), *sorted((ROOT / "csrc" / "cpu").rglob("*.cpp"))]
    return CppExtension(
        "lth_sparse._cpu",
        [str(path.relative_to(ROOT)) for path in sources],
        extra_compile_args={"cxx": ["-O3", "-std=c++20", sources_flag(), STABLE_ABI]},
        py_limited_api=True,
    )


def cuda_extension() -> tuple[Any, str]:
    """csrc/cuda, in a shared object of its own, for it needs libtorch_cuda.so; or None, and why not."""
    if os.environ.get(CUDA_SWITCH) == "0":
        return None, f"{CUDA_SWITCH}=0"
    home = cuda_home()
    if home is None:
        return None, "there is no nvcc on the PATH or under CUDA_HOME"
    os.environ["CUDA_HOME"] = home  # Read when cpp_extension is imported.
    import torch

    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is built without CUDA"
    version = subprocess.run([f"{home}/bin/nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)", version)
    if release is None or release[1] != torch.version.cuda.split(".")[0]:
        found = release[1] if release else "of an unknown version"
        return None, f"nvcc is {found}, and torch is built with CUDA {torch.version.cuda}"
    wanted = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", GPUS)
    if older := [each for each in re.split("[; ]+", wanted) if re.match(r"[0-7]\.", each)]:
        return None, f"TORCH_CUDA_ARCH_LIST has {older[0]}, and the kernels need 8.0 (Ampere) or newer"
    from torch.utils.cpp_extension import CUDAExtension

    include = str(ROOT / "csrc" / "cuda" / "device")
    extension = CUDAExtension(
        "lth_sparse._cuda",
        [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu"))],
        include_dirs=[include],
        extra_compile_args={"nvcc": ["-O3", "-std=c++20", "--threads=2", STABLE_ABI, "-DUSE_CUDA"]},
        py_limited_api=True,
        # Where nobody asked for it, a compiler that nvcc does not take must not keep the rest from being installed.
        optional=os.environ.get(CUDA_SWITCH) != "1",
    )
    return extension, ""


def builder() -> Any:
    """PyTorch's, which compiles as many files at a time as there are cores where it finds ninja, else one by one."""
    from torch.utils.cpp_extension import BuildExtension

    # It looks on the PATH, where the environment's own is only if that is activated.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])

    class Builder(BuildExtension):  # type: ignore[misc]
        def build_extension(self, extension: Any) -> None:
            try:
                super().build_extension(extension)
            except RuntimeError as error:  # Of ninja; setuptools goes on without an optional extension after its own.
                raise CompileError(str(error)) from error

    return Builder


def extensions() -> dict[str, Any]:
    """The arguments of setup() that build csrc/, or none of them, with the reason said."""
    if compiler() is None:
        say("there is no C++ compiler (set CXX, or install g++ or clang): installed without the C++ and CUDA kernels")
        return {}
    try:
        cuda, reason = cuda_extension()
    except ImportError:
        say(
            "torch is not in the environment: installed without the C++ and CUDA kernels; for them, "
            "'pip install torch' first, or build without --no-build-isolation"
        )
        return {}
    if cuda is None:
        if os.environ.get(CUDA_SWITCH) == "1":
            sys.exit(f"lth_sparse: {CUDA_SWITCH}=1 asks for the CUDA kernels: {reason}")
        say(f"installed without the CUDA kernels: {reason}")
    return {
        "ext_modules": [cpp_extension(), autograd_extension(), *([cuda] if cuda else [])],
        "cmdclass": {"build_ext": builder()},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(
    packages=[*find_packages(include=["lth_sparse", "lth_sparse.*"]), "lth_sparse.kernels"],
    package_dir={"lth_sparse.kernels": "kernels"},
    package_data={"lth_sparse": ["py.typed"], "lth_sparse.report": ["*.css"], "lth_sparse.kernels": ["*.json"]},
    **extensions(),
)
