"""csrc/ as clang builds it: the kernels of every instruction set, and what arm64 is left with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

from lth_sparse.backends import extension

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted((ROOT / "csrc").glob("*.cpp")), *sorted((ROOT / "csrc" / "cpu").rglob("*.cpp"))]
ARM64_HEADERS = Path("/usr/aarch64-linux-gnu/include")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("clang++") is None, reason="there is no clang++: install clang"),
]


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Standard output, of a command that has to succeed."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, whose C++ kernels clang built."""
    copy = tmp_path_factory.mktemp("clang") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "*.so", "__pycache__", ".*_cache", "runs")
    shutil.copytree(ROOT, copy, ignore=ignored)
    build = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
    # Nobody debugs it, and the node of csrc/autograd, half a minute of PyTorch's headers, is for `make clang`.
    shutil.rmtree(copy / "csrc" / "autograd")
    (copy / "csrc" / "autograd").mkdir()
    (copy / "csrc" / "autograd" / "module.cpp").write_text("int nothing;\n")
    run(*build, cwd=copy, CXX="clang++", CFLAGS="-g0", LTH_SPARSE_CUDA="0", PYTHONPATH="")
    return copy


@pytest.fixture(scope="module")
def library(checkout: Path) -> Path:
    (built,) = (checkout / "lth_sparse").glob("_cpu*.so")
    return built


def test_clang_is_what_compiled_it_and_doctor_says_so(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "built", lambda name: library)
    assert extension.compiler("_cpu").startswith("clang version ")


@pytest.mark.parametrize("instruction_set", ["avx512", "avx2", "portable"])
def test_every_way_to_cut_a_layer_up(checkout: Path, instruction_set: str) -> None:
    (tests,) = (checkout / "tests").rglob("test_cpp_kernels.py")
    # One layout, for time's sake: `make clang` runs all of them.
    chosen = ("-q", "-x", "-p", "no:cacheprovider", str(tests), "-k", "every_way and contiguous")
    environment = {"LTH_SPARSE_CPU": instruction_set, "PYTHONPATH": "", "PYTEST_ADDOPTS": ""}
    output = run(sys.executable, "-m", "pytest", *chosen, cwd=checkout, **environment)
    if refused := re.search(rf"LTH_SPARSE_CPU={instruction_set}: .* does not run it", output):
        pytest.skip(refused[0])
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has several instruction sets")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="there is no objdump: install binutils")
def test_what_every_processor_runs_is_compiled_for_every_processor(checkout: Path, library: Path) -> None:
    """Elsewhere than in the kernels of an instruction set, and above all in what the standard library has inline, there
    is no instruction of AVX or later: their names are those that begin with v."""
    inside, outside = set(), set()
    function = ""
    for line in run("objdump", "-dC", "--no-show-raw-insn", str(library), cwd=checkout).splitlines():
        if found := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = found[1]
        elif re.match(r" *[0-9a-f]+:\s+v(?!er[rw]\b)", line):
            # objdump leaves the names of some lambdas as they are.
            own = re.search(r"lth_sparse::avx|^_Z[A-Z]*10lth_sparse\d+avx", function)
            own = own and not function.startswith("std::")
            (inside if own else outside).add(function)
    assert inside
    assert not outside


@pytest.mark.skipif(not ARM64_HEADERS.is_dir(), reason="there are no headers of arm64: install g++-aarch64-linux-gnu")
def test_nothing_of_x86_is_left_for_arm64() -> None:
    headers = [argument for path in include_paths() for argument in ("-isystem", path)]
    options = (
        "--target=aarch64-linux-gnu",
        "-fsyntax-only",
        "-std=c++20",
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        '-DLTH_SPARSE_SOURCES=""',
    )
    run("clang++", *options, *headers, *map(str, SOURCES), cwd=ROOT)
