"""What pytest collects: a case for each device, layer, sparsity, operation and side that this machine can run.

What it cannot run is collected once, and skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import lth_sparse
from bench.cases.engines import ENGINE_CASES
from bench.cases.layers import LAYERS, Layer
from bench.cases.networks import NETWORKS, Network
from bench.cases.peers import PEER_CASES
from bench.contests.layers import operations_on
from bench.sides.engines import ENGINES
from bench.sides.installed import Installed
from bench.sides.peers import PEERS
from lth_sparse.backends import registry, triton

MARKERS = {"cpu": pytest.mark.cpu, "cuda": pytest.mark.gpu}
NO_GPU = "there is no GPU that torch.cuda can use"


@dataclass(frozen=True, eq=False)
class Place:
    """A layer or a network on a device: what is timed in one go."""

    device: torch.device
    case: Layer | Network


def unusable(backend: str, device: torch.device) -> str:
    """Why `backend` is not timed on `device`, "" if it is."""
    if reason := lth_sparse.backends()[backend]:
        return reason
    if backend == "triton" and triton.interpreted():
        return "its kernels run in Triton's interpreter here, which is there to check them"
    return registry.get(backend).refuses(device)


def backends(device: torch.device) -> list[str]:
    """Ours that are timed on `device`: all but masked dense PyTorch, which is timed as PyTorch's own operators."""
    return [name for name in lth_sparse.backends() if name != "dense" and not unusable(name, device)]


def layers() -> list[Any]:
    """Arguments for (place, sparsity, operation, side)."""
    found = list(_skipped(4))
    for device in _devices():
        for layer in LAYERS:
            if layer.avx2:
                continue
            place, full = Place(device, layer), [pytest.mark.full] if layer.full else []
            supported = [name for name in backends(device) if supports(name, place)]
            for sparsity in layer.goals:
                for operation in operations_on(device):
                    for side in ("dense", *supported):
                        found.append(_case(place, sparsity, operation, side, *full))
    return found


def networks() -> list[Any]:
    """Arguments for (place, sparsity, side)."""
    found = list(_skipped(3))
    for device in _devices():
        for network in NETWORKS:
            place, full = Place(device, network), [pytest.mark.full] if network.full else []
            for sparsity in network.goals:
                found += [_case(place, sparsity, None, side, *full) for side in ("dense", *backends(device))]
            for sparsity in network.low:
                found += [_case(place, sparsity, None, side, pytest.mark.full) for side in ("dense", "auto")]
    return found


def peers() -> list[Any]:
    """Arguments for (case), and one for each peer that is not installed."""
    return [*(pytest.param(case, id=str(case)) for case in PEER_CASES), *_missing(PEERS)]


def engines() -> list[Any]:
    """Arguments for (case), and one for each engine that is not installed."""
    return [*(pytest.param(case, id=str(case)) for case in ENGINE_CASES), *_missing(ENGINES)]


def supports(backend: str, place: Place) -> bool:
    """Whether the layer can be computed by `backend`."""
    assert isinstance(place.case, Layer)
    return registry.get(backend).supports(place.case.spec, torch.float32, place.device)[0]


def _missing(others: Mapping[str, Installed]) -> Iterator[Any]:
    for name, other in others.items():
        if reason := other.missing():
            yield pytest.param(None, marks=pytest.mark.skip(reason=f"{name}: {reason}"), id=name.replace(" ", "-"))


def _devices() -> list[torch.device]:
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def _case(place: Place, sparsity: float, operation: str | None, side: str, *marks: Any) -> Any:
    """Its name, by which -k selects: device, layer, percent, operation, side."""
    device = place.device.type.replace("cuda", "gpu")
    words = [device, str(place.case), f"{100 * sparsity:.0f}", *([operation] if operation else []), side]
    marks = (*marks, MARKERS[place.device.type])
    given = (place, sparsity, *([operation] if operation else []), side)
    return pytest.param(*given, marks=marks, id="-".join(words).replace(" ", "-"))


def _skipped(arguments: int) -> Iterator[Any]:
    """One for each backend that cannot be timed anywhere here, and one for the GPU if there is none."""
    nothing = (None,) * arguments
    if not torch.cuda.is_available():
        yield pytest.param(*nothing, marks=[pytest.mark.gpu, pytest.mark.skip(reason=NO_GPU)], id="gpu")
    for name in lth_sparse.backends():
        reasons = {device.type: unusable(name, device) for device in _devices()}
        if all(reasons.values()):
            marks = [MARKERS[max(reasons)], pytest.mark.skip(reason=f"{name}: {'; '.join(reasons.values())}")]
            yield pytest.param(*nothing, marks=marks, id=name)
