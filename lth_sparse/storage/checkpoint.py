"""Dense weights from a file that a training left: a state dict, by torch.save or in a safetensors file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lth_sparse.nn.masks import kinds
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError, because

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where training programs keep the state dict among the rest of what they save."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every name."""

COUNTER = "num_batches_tracked"
"""Of BatchNorm: files from before it was counted lack it, and nothing is computed from it."""


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """(state dict, SHA-256 of the file in hex, as sha256sum gives it). No code of the file runs.

    Raises InputError for a file that cannot be read, or has no state dict.
    """
    try:
        content = regular_files.read_bytes(path)
    except OSError as error:
        raise InputError(f"--checkpoint {path}: {error.strerror}") from error
    return _state_dict(path, _loaded(path, content)), hashlib.sha256(content).hexdigest()


def _loaded(path: Path, content: bytes) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # A file from anywhere may be anything, and pickle raises as many types.
        raise InputError(
            f"--checkpoint {path} cannot be read: expected a state dict, written by torch.save(model.state_dict(), "
            f"FILE) or as safetensors, with no other Python objects in it ({because(error)})"
        ) from error


def _state_dict(path: Path, found: Any) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"--checkpoint {path} holds a {type(found).__name__}; expected a state dict")
    if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"--checkpoint {path} holds {', '.join(map(str, others[:5]))} beside tensors; expected a state dict, by "
            f"itself or as one of {', '.join(WRAPPERS)}"
        )
    return {str(name): value for name, value in found.items()}


def put_into(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Gives `model`, in place, the weights of a state dict of it, whole.

    `where` names the file. Raises InputError, with layers and shapes, where a name or a shape does not fit.
    """
    expected = model.state_dict()
    given = _without_prefixes(weights, expected)
    given = {name: value for name, value in expected.items() if name.endswith(COUNTER)} | given
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        parts = [f"{what} {_some(names)}" for what, names in (("it lacks", missing), ("it has", unknown)) if names]
        raise InputError(
            f"{where} is not of this network: {', and '.join(parts)}{', which this network has not' * bool(unknown)}"
        )
    differing = [name for name in expected if given[name].shape != expected[name].shape]
    if differing:
        raise InputError(f"{where} does not fit: {_shapes(model, given, expected, differing)}")
    if spoilt := [name for name in expected if given[name].is_floating_point() and not given[name].isfinite().all()]:
        raise InputError(f"{where} has numbers that are not finite in {_some(spoilt)}")
    model.load_state_dict(given)


def _shapes(model: nn.Module, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], differing: list[str]) -> str:
    head = next((name for name, kind in kinds(model).items() if kind == "output"), None)
    shapes = [f"{name} is {list(given[name].shape)} there and {list(expected[name].shape)} here" for name in differing]
    if all(name.rpartition(".")[0] == head for name in differing):
        name = differing[0]
        return (
            f"its head is for {len(given[name])} classes, the data set has {len(expected[name])} "
            f"({'; '.join(shapes)}); put a head for these classes into the file, or choose the data that it is for"
        )
    return "; ".join(shapes[:5]) + ("; and more" if len(shapes) > 5 else "")


def _without_prefixes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(weights)
    while not found.keys() & expected.keys():
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
