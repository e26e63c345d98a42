"""The doctor: works when things are missing or broken, and sees a backend that is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lth_sparse as lth
from lth_sparse import doctor
from lth_sparse.backends import extension, registry
from lth_sparse.backends.base import Plan
from lth_sparse.backends.dense import DenseBackend
from tests import conftest

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ["versions", "processor", "GPU", "environment variables", "backends"]
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(["torchvision", "triton", "matplotlib", "sklearn", "tqdm", "PIL"]))
sys.argv = ["doctor"]
runpy.run_module("lth_sparse.doctor", run_name="__main__")
"""


def test_what_it_says_of_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert titles[1:-2] == SECTIONS
    assert re.search(r"^  OMP_WAIT_POLICY +passive$", out, re.MULTILINE)
    assert re.search(rf"^  torch +{re.escape(torch.__version__)}, built with", out, re.MULTILINE)
    for name, reason in lth.backends().items():
        assert re.search(rf"^  {name} +{re.escape(f'does not work here: {reason}' if reason else 'works')}", out, re.M)
        if not reason:
            assert re.search(rf"^  {name} on cpu +ok: 3x3, strided, depthwise, 1x1, linear: ", out, re.MULTILINE)
    if not lth.backends()["cpp"]:
        for kernels, others in {"winograd": "strided, depthwise, 1x1", "depthwise": "3x3, strided, 1x1"}.items():
            assert re.search(rf"^  cpp/{kernels} on cpu +ok: .*computed by dense: {others}, linear$", out, re.MULTILINE)
        assert "whose float32 is up to 4e-06 of the largest result off (LTH_SPARSE_WINOGRAD)" in out
        assert re.search(r"compiled by (GCC|clang).* with kernels for .*portable; of which \w+ runs", out)
    assert out.isascii()


class Wrong(DenseBackend):
    name = "wrong"

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        return super().grad_weight(x, grad_out, plan) * (1.001 if plan.spec.kind == "linear" else 1)


class Raises(DenseBackend):
    name = "wrong"

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        raise RuntimeError("no such instruction")


@pytest.mark.parametrize(
    ("backend", "said"),
    [(Wrong, "FAILED: linear: OUT OF BOUNDS: grad_weight"), (Raises, "RuntimeError: no such instruction")],
)
def test_a_backend_that_is_wrong_fails_the_self_test(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backend: type[DenseBackend], said: str
) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_unusable", {"dense": "", "auto": "", "triton": "not tested here"})
    registry.register("wrong")(backend)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("  wrong on cpu")]
    assert said in line
    assert out.rstrip().endswith("FAILED: see the self-test above")


def test_what_cannot_be_found_out_says_why(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise OSError("/proc is not there")

    monkeypatch.setitem(doctor.SECTIONS, "processor", gone)
    monkeypatch.setattr(registry, "_unusable", {"dense": "", "auto": ""})
    assert doctor.main([]) == 0
    assert "not known  OSError: /proc is not there" in capsys.readouterr().out


def test_bad_input_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--fast"]) == 2
    assert "--fast" in conftest.error_line(capsys.readouterr().err)


def test_with_half_of_everything_missing_and_a_broken_extension(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for package in ("lth_sparse", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "lth_sparse" / "_cpu.abi3.so").write_bytes(b"not a shared object")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path, env=inherited | {"PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(re.findall(r"^  (\S+) +(.*)$", done.stdout, re.MULTILINE))
    assert str(tmp_path) in said["lth_sparse"]
    assert "cannot be imported" in said["torchvision"]
    assert said["c++"] == f"{os.environ.get('CXX', 'c++')} is not there"
    assert said["triton"] == "does not work here: Triton is not installed: run 'pip install triton'"
    assert re.match(r"does not work here: .*_cpu\.abi3\.so.* compiled by an unknown compiler", said["cpp"])
    assert "its extension is not built" in said["cuda"]
    assert "dense on cpu" in done.stdout


def test_how_an_extension_was_built_is_read_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "_x.so"
    path.write_bytes(
        b"\0avx2\0\0avx512 \0portable\0GCC: (Debian 12.2.0-14) 12.2.0\0 -arch sm_90 \0 -arch sm_80 -arch sm_90 "
    )
    monkeypatch.setattr(extension, "built", lambda name: path if name == "_x" else None)
    assert extension.compiler("_x") == "GCC: (Debian 12.2.0-14) 12.2.0"
    assert extension.architectures("_x") == ["sm_80", "sm_90"]
    assert extension.instruction_sets("_x") == ["avx2", "portable"]
    assert (extension.compiler("_y"), extension.architectures("_y"), extension.instruction_sets("_y")) == ("", [], [])
