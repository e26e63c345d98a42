"""The package imports from a bare checkout, an editable install and a wheel that is built from the source distribution;
csrc/ is built when it can be."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
IMPORT = (
    "import lth_sparse, lth_sparse.kernels, lth_sparse.report.html; from lth_sparse.report import page; "
    "print(lth_sparse.__file__); print(lth_sparse.kernels.__file__)"
)


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    """Standard output and error of this Python, told nothing of where this checkout is, and to leave CUDA out: that is
    built once, with the environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"LTH_SPARSE_CUDA": "0"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, without what git ignores."""
    copy = tmp_path_factory.mktemp("checkout") / "lth_sparse_repository"
    ignored = (".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", "runs")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*ignored))
    return copy


# A wheel and an editable install give the compiler the very same commands, but for where csrc/, the object and, by
# ninja, the list of what it depends on lie. What is tested is what is installed where, not how fast it is: less is
# asked of it than the commands say.
REMEMBERING = """#!/usr/bin/env python3
import hashlib, os, pathlib, shutil, sys

compiler, *arguments = {compiler!r} + sys.argv[1:]
if "-c" not in arguments or "-o" not in arguments:
    os.execvp(compiler, [compiler, *arguments])
arguments = [{{"-O3": "-O0", "-O2": "-O0", "-g": "-g0"}}.get(each, each) for each in arguments]
places = [place for place, each in enumerate(arguments) if each in ("-o", "-MF")]
target = arguments[arguments.index("-o") + 1]
(source,) = (pathlib.Path(each).resolve() for each in arguments if each.endswith(".cpp"))
root = next(parent for parent in source.parents if (parent / "csrc").is_dir())
elsewhere = {{place + 1 for place in places}}
question = [compiler] + [each.replace(str(root), "") for k, each in enumerate(arguments) if k not in elsewhere]
for path in sorted(path for path in (root / "csrc").rglob("*") if path.is_file()):
    question += [str(path.relative_to(root)), path.read_bytes()]
known = pathlib.Path({folder!r}) / hashlib.sha256(repr(question).encode()).hexdigest()
if not known.exists():
    if status := os.spawnvp(os.P_WAIT, compiler, [compiler, *arguments]):
        sys.exit(status)
    shutil.copyfile(target, known)
shutil.copyfile(known, target)
"""


@pytest.fixture(scope="module")
def remembering_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a C++ compiler that, asked again about an equal csrc/, gives the object that it made before."""
    folder = tmp_path_factory.mktemp("objects")
    path = folder / "c++"
    path.write_text(REMEMBERING.format(compiler=shlex.split(os.environ.get("CXX", "c++")), folder=str(folder)))
    path.chmod(0o755)
    return str(path)


def imported_from(output: str, root: Path) -> bool:
    return all(Path(line).is_relative_to(root) for line in output.split()[-2:])


def test_a_bare_checkout(checkout: Path) -> None:
    # -S keeps the editable install of this environment out, so its packages have to be named.
    packages = sysconfig.get_path("purelib")
    output = python("-S", "-c", f"import sys; sys.path.append({packages!r}); {IMPORT}", cwd=checkout)
    assert imported_from(output, checkout)


@pytest.fixture(scope="module")
def source_distribution(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build --sdist` makes of `checkout`."""
    folder = tmp_path_factory.mktemp("source_distribution")
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), cwd=checkout)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def distributions(checkout: Path, remembering_compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `python -m build` put a source distribution of `checkout`, and the wheel that it built from that."""
    folder = tmp_path_factory.mktemp("distributions")
    arguments = ("--no-isolation", "--outdir", str(folder))
    python("-m", "build", *arguments, cwd=checkout, CXX=remembering_compiler)
    return folder


def test_a_source_distribution_holds_what_builds_and_nothing_else(checkout: Path, source_distribution: Path) -> None:
    with tarfile.open(source_distribution) as archive:
        found = {name.split("/", 1)[1] for name in archive.getnames() if archive.getmember(name).isfile()}
    written_by_setuptools = {name for name in found if name.startswith("lth_sparse.egg-info/")}
    sources = {
        path.relative_to(checkout).as_posix()
        for folder in ("csrc", "kernels", "lth_sparse")
        for path in (checkout / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    top = {
        "CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "SECURITY.md",
        "pyproject.toml", "requirements-dev.txt", "requirements-docs.txt", "requirements-peers.txt",
        "requirements-ray.txt", "requirements-serve.txt", "requirements-slurm.txt", "requirements-tensorboard.txt",
        "requirements.txt", "setup.cfg", "setup.py",
    }  # fmt: skip
    assert found - written_by_setuptools == sources | top


@pytest.mark.long
def test_distributions_have_whole_metadata(distributions: Path) -> None:
    files = [str(path) for path in distributions.iterdir()]
    assert len(files) == 2
    python("-m", "twine", "check", "--strict", *files, cwd=distributions)


@pytest.mark.long
def test_a_wheel(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    assert "-cp310-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    target = tmp_path / "installed"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=tmp_path)
    assert not (target / "kernels").exists()
    assert (target / "lth_sparse" / "report" / "style.css").is_file()
    assert (target / "lth_sparse" / "py.typed").is_file()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert imported_from(python("-c", IMPORT, cwd=empty, PYTHONPATH=str(target)), target)
    lottery = ("--iterations=40", "--evaluate-every=20", "--rounds=1", "--dataset=digits", "--backend=cpp", "--out=out")
    python("-m", "lth_sparse.run", *lottery, cwd=empty, PYTHONPATH=str(target))
    assert (empty / "out" / "report.html").is_file()


@pytest.mark.long
def test_an_editable_install(checkout: Path, remembering_compiler: str, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    arguments = (
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--ignore-installed",
        "--prefix",
        str(prefix),
    )
    python("-m", "pip", "install", *arguments, "-e", ".", cwd=checkout, CXX=remembering_compiler)
    (packages,) = prefix.rglob("site-packages")
    start = f"import site, sys; site.addsitedir({str(packages)!r}); sys.path.append({sysconfig.get_path('purelib')!r})"
    assert imported_from(python("-S", "-c", f"{start}; {IMPORT}", cwd=tmp_path), checkout)


@pytest.fixture
def with_source(checkout: Path, tmp_path: Path) -> Path:
    """A checkout whose csrc/ has one operator, by the stable ABI that the kernels use, and nothing built."""
    copy = tmp_path / "with_source"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("csrc", "build", "*.so"))
    (copy / "csrc" / "autograd").mkdir(parents=True)
    (copy / "csrc" / "autograd" / "module.cpp").write_text("int nothing;\n")
    (copy / "csrc" / "ops.cpp").write_text(
        """
#include <torch/csrc/stable/library.h>
int64_t answer() { return 42; }
STABLE_TORCH_LIBRARY(lth_sparse_test, library) { library.def("answer() -> int"); }
void boxed_answer(StableIValue* stack, uint64_t, uint64_t) { stack[0] = torch::stable::detail::from(answer()); }
STABLE_TORCH_LIBRARY_IMPL(lth_sparse_test, CompositeExplicitAutograd, library) {
  library.impl("answer", &boxed_answer);
}
"""
    )
    return copy


def test_sources_are_built_when_there_is_a_compiler(with_source: Path) -> None:
    python("setup.py", "--quiet", "build_ext", "--inplace", cwd=with_source)
    (built,) = (with_source / "lth_sparse").glob("_cpu*.so")
    load = f"import torch; torch.ops.load_library({str(built)!r}); print(torch.ops.lth_sparse_test.answer())"
    assert python("-c", load, cwd=with_source).split()[-1] == "42"


def test_without_a_compiler_the_package_is_installed_and_says_so(with_source: Path) -> None:
    output = python("setup.py", "--quiet", "build_ext", "--inplace", cwd=with_source, CXX="/nowhere/c++")
    assert "there is no C++ compiler" in output
    assert "installed without the C++ and CUDA kernels" in output
    assert not list((with_source / "lth_sparse").glob("_cpu*.so"))


def test_without_nvcc_the_package_is_installed_and_says_so(with_source: Path) -> None:
    arguments = ("setup.py", "--quiet", "--name")
    output = python(*arguments, cwd=with_source, LTH_SPARSE_CUDA="", CUDA_HOME="/nowhere")
    assert "installed without the CUDA kernels: there is no nvcc on the PATH or under CUDA_HOME" in output
    refused = subprocess.run(
        [sys.executable, *arguments], cwd=with_source, capture_output=True, text=True,
        env=os.environ | {"LTH_SPARSE_CUDA": "1", "CUDA_HOME": "/nowhere"},
    )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1] == (
        "lth_sparse: LTH_SPARSE_CUDA=1 asks for the CUDA kernels: there is no nvcc on the PATH or under CUDA_HOME"
    )


@pytest.mark.skipif(shutil.which("nvcc") is None or torch.version.cuda is None, reason="there is no nvcc or CUDA torch")
def test_the_cuda_kernels_are_built_where_nvcc_is_and_load_without_a_gpu() -> None:
    from lth_sparse.backends import cuda, extension

    assert extension.built("_cuda") is not None
    assert cuda._load() == ""
    assert torch.cuda.is_available() or cuda._unusable() == "there is no NVIDIA GPU"


def test_the_package_is_imported_without_what_only_runs_need() -> None:
    heavy = {"torchvision", "sklearn", "matplotlib", "yaml", "timm", "onnx", "tensorboard", "lth_sparse.data"}
    code = (
        f"import torch, sys; before = {{*sys.modules}}; import lth_sparse; print({heavy!r} & {{*sys.modules}} - before)"
    )
    assert python("-c", code, cwd=Path(__file__).parents[1]).splitlines()[-1] == "set()"
