"""Safetensors files that carry the SHA-256 of their own content: tickets, states of a run, the image cache.

No pickle, so reading a file from a stranger runs none of its code; and a file that was cut short or changed is
refused by name instead of being believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from lth_sparse.errors import InputError
from lth_sparse.files import write_atomically


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


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return digest(tensors, json.dumps(dict(metadata), sort_keys=True))


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes `tensors` and `metadata` to `path`, whole or not at all. The key "sha256" of the metadata is taken."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = {**metadata, "sha256": _seal(held, metadata)}
    write_atomically(path, safetensors.torch.save(held, sealed))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata that `write` put at `path`.

    Raises DamagedFile when the content is not what was written, OSError when there is nothing to read.
    """
    content = path.read_bytes()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(header["__metadata__"])
        sealed = metadata.pop("sha256")
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged: it is cut short, or not a file of this project ({error})") from error
    if _seal(tensors, metadata) != sealed:
        raise DamagedFile(f"{path} is damaged: its content does not match the SHA-256 written in it")
    return tensors, metadata
