"""The shared objects that setup.py builds of csrc/."""

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
