"""The layers that others run too, as `pytest bench/ -m peers` times them, with what each figure has to reach."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases.goals import Goal
from bench.cases.layers import LAYERS
from lth_sparse.plans.layer_spec import LayerSpec


@dataclass(frozen=True)
class PeerCase:
    """A layer beside its peers. `trains`: a forward and a backward pass of the module, else a forward pass alone.

    `quiet` and `busy`: of the fastest peer's time over ours, with the machine to themselves and beside a process that
    spins on core 0.
    """

    name: str
    spec: LayerSpec
    input_shape: tuple[int, ...]
    sparsities: tuple[float, ...]
    trains: bool
    quiet: Goal | None = None
    busy: Goal | None = None

    def __str__(self) -> str:
        return f"{self.name}-{'training' if self.trains else 'inference'}"


_SPARSITIES = (0.8, 0.9, 0.95, 0.98)
_CONVOLUTIONS = ("c64", "c128", "c256", "c512")
_ROWS = 128
# (inputs, outputs): the last are the halves of a transformer's feed-forward layer.
_LINEAR = ((4096, 256), (1024, 4096), (768, 3072), (3072, 768))
_FEW_ROWS = (1, 4, 16)


def _of_layers(trains: bool) -> list[PeerCase]:
    layers = {layer.name: layer for layer in LAYERS}
    return [PeerCase(name, layers[name].spec, layers[name].input_shape, _SPARSITIES, trains) for name in _CONVOLUTIONS]


def _linear(inputs: int, outputs: int, rows: int = _ROWS) -> tuple[LayerSpec, tuple[int, ...]]:
    return LayerSpec("linear", inputs, outputs), (rows, inputs)


PEER_CASES = [
    *_of_layers(trains=True),
    *(
        PeerCase(f"linear-{size[0]}-{size[1]}", *_linear(*size), _SPARSITIES, True, Goal(1.3, 1.5), Goal(1.1, 1.5))
        for size in _LINEAR
    ),
    *_of_layers(trains=False),
    PeerCase("linear-4096-256", *_linear(4096, 256), _SPARSITIES, False),
    *(
        PeerCase(f"linear-4096-4096-rows-{rows}", *_linear(4096, 4096, rows), _SPARSITIES[:-1], False, Goal(1.0, 1.5))
        for rows in _FEW_ROWS
    ),
]
