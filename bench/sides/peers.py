"""Others that run a pruned layer: nothing of theirs is copied, and each is installed only by who asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bench.sides import inference_peers, training_peers
from bench.sides.installed import DEEPSPARSE, PEERS_EXTRA, Installed
from bench.sides.training_peers import Trained
from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec


@dataclass(frozen=True)
class Peer(Installed):
    """`trained`: the module of a spec and a masked weight; `inferred`: the forward pass of a spec, x and such a weight;
    None where it has none. `convolutions`: which it computes too."""

    trained: Callable[[LayerSpec, Tensor], Trained] | None = None
    inferred: Callable[[LayerSpec, Tensor, Tensor], Side] | None = None
    convolutions: bool = True

    def has(self, spec: LayerSpec, trains: bool) -> bool:
        """Whether it computes such a layer."""
        return (self.trained if trains else self.inferred) is not None and (self.convolutions or spec.kind == "linear")


PEERS = {
    "torch CSR": Peer(training_peers.torch_csr, inference_peers.torch_csr, convolutions=False),
    "SparseProp": Peer(training_peers.sparseprop, modules=("sparseprop",), install=PEERS_EXTRA),
    "SparseLab": Peer(training_peers.sparselab, convolutions=False, modules=("sparselab",), install=PEERS_EXTRA),
    "onnxruntime dense": Peer(
        inferred=inference_peers.onnxruntime_dense, modules=("onnxruntime", "onnx"), install=PEERS_EXTRA
    ),
    "DeepSparse": Peer(
        inferred=inference_peers.deepsparse,
        modules=("deepsparse", "onnx"),
        install=DEEPSPARSE,
    ),
}
