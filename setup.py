"""Builds the C++ extension when there are sources in csrc/ and the means to build them; the rest is in pyproject.toml.

kernels/ is installed as `lth_sparse.kernels`: PyPI has a package called `kernels`, so no module of that name of ours
may lie at the top level.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def say(text: str) -> None:
    print(f"lth_sparse: {text}", file=sys.stderr)


def compiler() -> str | None:
    """The C++ compiler that PyTorch's build would call, or None when it is not there."""
    return shutil.which(shlex.split(os.environ.get("CXX", "c++"))[0])


def extension() -> dict[str, Any]:
    """The arguments of setup() that build csrc/, or none of them, with the reason said."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    if not sources:
        return {}
    if compiler() is None:
        say("there is no C++ compiler (set CXX, or install g++): installed without the C++ kernels")
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        say(
            "torch is not in the build environment: installed without the C++ kernels; for them, install the "
            "requirements first, then 'pip install --no-build-isolation -e .'"
        )
        return {}
    # The stable ABI: one binary for every torch from 2.11 and every Python from 3.10 on.
    arguments = {"cxx": ["-O3", "-std=c++20", "-DTORCH_TARGET_VERSION=0x020b000000000000"]}
    return {
        "ext_modules": [CppExtension("lth_sparse._cpu", sources, extra_compile_args=arguments, py_limited_api=True)],
        "cmdclass": {"build_ext": BuildExtension.with_options(use_ninja=False)},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(
    packages=[*find_packages(include=["lth_sparse", "lth_sparse.*"]), "lth_sparse.kernels"],
    package_dir={"lth_sparse.kernels": "kernels"},
    package_data={"lth_sparse.report": ["*.css"], "lth_sparse.kernels": ["*.json"]},
    **extension(),
)
