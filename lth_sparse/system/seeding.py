"""Independent random streams from the one seed of a run."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: object) -> int:
    """A seed for the stream called `names`: the same on every machine, unrelated to every other stream's."""
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:7], "little")


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for the stream called `names`."""
    return torch.Generator().manual_seed(derive(seed, *names))
