"""The shared objects that setup.py builds of csrc/."""

import re
from pathlib import Path

import torch


def built(name: str) -> Path | None:
    """The one called `name`, such as "_cpu", if it was built."""
    return next(iter(sorted(Path(__file__).parent.parent.glob(f"{name}*.so"))), None)


def load(name: str, what_to_do: str) -> str:
    """Load its operators; "" when that went well, else the reason why not. what_to_do: for one that is not built."""
    path = built(name)
    if path is None:
        return f"its extension is not built: {what_to_do}"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return ""


def compiler(name: str) -> str:
    """What the compiler wrote about itself into the one called `name`; "" when that is not built, or says nothing."""
    path = built(name)
    content = path.read_bytes() if path else b""
    # What clang built has GCC's words in it too, from the startup files of the C library.
    found = re.search(rb"clang version [\d.]+", content) or re.search(rb"GCC: \([^)]*\) [\d.]+", content)
    return found[0].decode() if found else ""


def architectures(name: str) -> list[str]:
    """The GPUs that the one called `name` has machine code for, such as sm_90."""
    path = built(name)
    found = re.findall(rb"-arch (sm_\d+\w?)", path.read_bytes()) if path else []
    return sorted({each.decode() for each in found})


def instruction_sets(name: str) -> list[str]:
    """Those of processors that the one called `name` has kernels for: names in its read-only data."""
    path = built(name)
    content = path.read_bytes() if path else b""
    return [each for each in ("avx512", "avx2", "portable") if b"\0" + each.encode() + b"\0" in content]
