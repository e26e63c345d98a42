"""Where PyTorch's own generators stand: what a network itself leaves to chance, dropout, is drawn from them."""

from __future__ import annotations

import torch
from torch import Tensor


def state(device: torch.device) -> dict[str, Tensor]:
    """Of the CPU's, and of that of `device` where it is a GPU: type of the device -> uint8, on the CPU."""
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def check(kept: dict[str, Tensor], device: torch.device) -> None:
    """Raises ValueError or RuntimeError where `state` did not give this on such a device."""
    if kept.keys() != {"cpu", device.type}:
        raise ValueError(f"chance/ is of {', '.join(sorted(kept))}, not of this device")
    for name, value in kept.items():
        torch.Generator(device if name == "cuda" else name).set_state(value.cpu())


def restore(kept: dict[str, Tensor], device: torch.device) -> None:
    """Puts them where they stood."""
    torch.set_rng_state(kept["cpu"].cpu())
    if "cuda" in kept:
        torch.cuda.set_rng_state(kept["cuda"].cpu(), device)
