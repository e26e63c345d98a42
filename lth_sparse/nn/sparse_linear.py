"""SparseLinear: nn.Linear that pays for live weights only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lth_sparse import ops
from lth_sparse.nn.replacing import check_dense, check_nothing_is_lost, copy_extras
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.plans.layer_spec import LayerSpec


class SparseLinear(SparseLayer):
    """A drop-in for nn.Linear: same arguments, same initial weights, same outputs with the mask applied.

    mask: bool [out_features, in_features]; None means every weight is live.
    Input [..., in_features], of the layer's dtype; output [..., out_features].
    Raises TypeError or ValueError for a mask or an input that does not fit, and BackendError (a ValueError)
    for a backend that is not known or not usable here.
    """

    _sizes = ("in_features", "out_features")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mask: Tensor | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # Through nn.Linear, so that its initial weights hold by construction.
        dense = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        self._copy_from_linear(dense, mask, backend)

    @classmethod
    def from_dense(cls, module: nn.Linear, mask: Tensor | None, backend: str = "auto") -> SparseLinear:
        """A sparse copy of `module`, which may be pruned by torch.nn.utils.prune and is left as it is.

        Weights where `mask` is False are dropped; None keeps all. Hooks, extra buffers and attributes come along.
        Errors as for the class, and for what cannot come along, such as a hook on a parameter.
        """
        check_dense(module, nn.Linear, SparseLinear)
        layer = cls.__new__(cls)
        SparseLayer.__init__(layer)
        layer._copy_from_linear(module, mask, backend)
        copy_extras(module, nn.Linear, layer)
        return layer

    def to_dense(self) -> nn.Linear:
        """A dense copy of this layer, pruned weights 0, with its hooks, extra buffers and attributes.

        Raises ValueError for what cannot come along, such as a hook on a parameter.
        """
        check_nothing_is_lost(self, SparseLinear, nn.Linear)
        dense: nn.Linear = skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        self._copy_to(dense)
        copy_extras(self, SparseLinear, dense)
        return dense

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        followers = self._followers
        return self._output(input) if followers is None else self._waiting(input, followers)

    def _by_operator(self, input: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        return ops.linear(input, self.values, bias, self.plan, self.computed_by, relu)

    def _output_shape(self, input: Tensor) -> tuple[int, ...]:
        return *input.shape[:-1], self.out_features

    def extra_repr(self) -> str:
        """nn.Linear's words, then sparsity and backend."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, sparsity={self.sparsity:.2%}, backend={self.backend}"
        )

    def _copy_from_linear(self, dense: nn.Linear, mask: Tensor | None, backend: str) -> None:
        self.in_features = dense.in_features
        self.out_features = dense.out_features
        self.spec = LayerSpec("linear", self.in_features, self.out_features)
        self._copy_from(dense, mask, backend)
