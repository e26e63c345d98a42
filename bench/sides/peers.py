"""Others that run a pruned layer: nothing of theirs is copied, and each is installed only by who asks for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bench.sides import inference_peers, training_peers
from bench.sides.training_peers import Trained
from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec

_EXTRA = "pip install --no-build-isolation -e '.[peers]'"


@dataclass(frozen=True)
class Peer:
    """`trained`: the module of a spec and a masked weight; `inferred`: the forward pass of a spec, x and such a weight;
    None where it has none. `convolutions`: which it computes too. `modules`: it needs."""

    trained: Callable[[LayerSpec, Tensor], Trained] | None = None
    inferred: Callable[[LayerSpec, Tensor, Tensor], Side] | None = None
    convolutions: bool = True
    modules: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str:
        """Why it cannot be run here, "" if it can."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else ""

    def has(self, spec: LayerSpec, trains: bool) -> bool:
        """Whether it computes such a layer."""
        return (self.trained if trains else self.inferred) is not None and (self.convolutions or spec.kind == "linear")


PEERS = {
    "torch CSR": Peer(training_peers.torch_csr, inference_peers.torch_csr, convolutions=False),
    "SparseProp": Peer(training_peers.sparseprop, modules=("sparseprop",), install=_EXTRA),
    "SparseLab": Peer(training_peers.sparselab, convolutions=False, modules=("sparselab",), install=_EXTRA),
    "onnxruntime dense": Peer(
        inferred=inference_peers.onnxruntime_dense, modules=("onnxruntime", "onnx"), install=_EXTRA
    ),
    "DeepSparse": Peer(
        inferred=inference_peers.deepsparse,
        modules=("deepsparse", "onnx"),
        install="pip install deepsparse==1.8.0 'numpy<2' (Python 3.8 to 3.11)",
    ),
}
