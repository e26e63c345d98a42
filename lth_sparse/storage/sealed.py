"""Safetensors files that carry the SHA-256 of their own content: tickets, states of a run, the image cache.

No pickle, so reading a file from a stranger runs none of its code; and a file that was cut short or changed is
refused by name instead of being believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lth_sparse.storage.files import write_atomically
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError

ENTRY = "lth_sparse"
"""The one entry of the metadata: safetensors writes several in an order that changes from call to call."""


_NOT_SEALED = (
    safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError
)  # fmt: skip
"""What a file raises that anybody may have written: RuntimeError for dtypes that PyTorch can do little with."""


class DamagedFile(InputError):
    """A sealed file that does not hold what was written to it."""


def digest(tensors: Mapping[str, Tensor], extra: str = "") -> str:
    """SHA-256, in hex, of the names, dtypes, shapes and bytes of `tensors` (in order of name) and of `extra`."""
    sha = hashlib.sha256(extra.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _seal(tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> str:
    return digest(tensors, json.dumps(dict(data), sort_keys=True))


def write(path: Path, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
    """Writes `tensors`, and `data` with their SHA-256 as one JSON entry of the metadata, whole or not at all.

    `data` is JSON-ready, without a key "sha256". Equal content gives equal bytes.
    """
    # As a reader will have it: keys that are numbers become text, which has another order.
    data = json.loads(json.dumps(data))
    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    held = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    sealed = json.dumps({**data, "sha256": _seal(held, data)}, sort_keys=True)
    write_atomically(path, safetensors.torch.save(held, {ENTRY: sealed}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the data that `write` put at `path`.

    Raises DamagedFile when the content is not what was written, OSError when there is nothing to read.
    """
    content = regular_files.read_bytes(path)
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        data = json.loads(header["__metadata__"][ENTRY])
        sealed = data.pop("sha256")
        found = _seal(tensors, data)
    except _NOT_SEALED as error:
        raise DamagedFile(f"{path} is damaged: it is cut short, or not a file of this project ({error})") from error
    if found != sealed:
        raise DamagedFile(f"{path} is damaged: its content does not match the SHA-256 written in it")
    return tensors, data
