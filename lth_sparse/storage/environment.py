"""What a run ran on: enough to judge its times, and to run it again."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lth_sparse.system import allocator


def _first_processor() -> dict[str, str]:
    """What Linux says about it; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    entries = [line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, value in entries}


def _processor() -> str:
    return _first_processor().get("model name") or platform.processor() or platform.machine()


def _processor_family() -> str:
    """Vendor, family and model in numbers, which a virtual machine does not hide behind a name; "" if not known."""
    found = _first_processor()
    wanted = ("vendor_id", "cpu family", "model")
    return "{} family {} model {}".format(*(found[name] for name in wanted)) if found.keys() >= set(wanted) else ""


def _commit() -> str:
    """The commit of the checkout that this package runs from, with "+changes" when it was edited; else ""."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip()


def describe(device: torch.device, version: str) -> dict[str, Any]:
    """Versions, processor, threads, allocator, device and commit, JSON-ready. `version`: of this package."""
    precision = {}
    if device.type == "cuda":
        convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        products: Any = torch.backends.cuda.matmul
        precision["float32"] = {"conv": convolutions.fp32_precision, "matmul": products.fp32_precision}
    return precision | {
        "lth_sparse": version,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "processor_family": _processor_family(),
        "threads": torch.get_num_threads(),
        "allocator": allocator.describe(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }


def processor_features() -> set[str]:
    """Instruction sets and the like, as Linux names them; empty elsewhere."""
    found = _first_processor()
    return set((found.get("flags") or found.get("Features") or "").split())


def version_of(package: str) -> str:
    """The version of an installed package, without importing it; "" when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def torchvision_version() -> str:
    """As it says itself, which names its CUDA; what is wrong where it cannot be imported."""
    try:
        import torchvision
    except Exception as error:  # One that was built for another torch raises RuntimeError.
        installed = version_of("torchvision")
        reason = " ".join(str(error).split())
        return f"{installed}, which cannot be imported: {reason}" if installed else "not installed"
    return str(torchvision.__version__)
