"""Prints what lth_sparse reads of each ticket given: `tickets.py FILE ...`, run with the code of either tree."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

import lth_sparse


def show(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """A line for each tensor, by name since a file keeps no order: dtype, shape, SHA-256 of its row-major values."""
    for key, tensor in sorted(tensors.items()):
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        print(f"{name} {key} {tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(values).hexdigest()}")


def main() -> None:
    """As the command line says."""
    for path in sys.argv[1:]:
        name = Path(path).stem
        ticket = lth_sparse.read_ticket(path)
        print(f"{name} network {None if ticket.network is None else json.dumps(asdict(ticket.network))}")
        print(f"{name} metadata {json.dumps(ticket.metadata)}")
        show(f"{name} read_ticket mask", ticket.masks)
        show(f"{name} read_ticket weight", ticket.weights)
        show(f"{name} load_ticket", lth_sparse.load_ticket(path).state_dict())


if __name__ == "__main__":
    main()
