"""SparseConv2d: nn.Conv2d that pays for live weights only."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_2_t
from torch.nn.modules.utils import _pair
from torch.nn.utils import skip_init

from lth_sparse import ops
from lth_sparse.nn.replacing import check_dense, check_nothing_is_lost, copy_extras
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.plans.layer_spec import LayerSpec

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class SparseConv2d(SparseLayer):
    """A drop-in for nn.Conv2d: same arguments, same initial weights, same outputs with the mask applied.

    mask: bool [out_channels, in_channels / groups, kernel_height, kernel_width]; None means every weight is
    live. Input [N, in_channels, H, W] or [in_channels, H, W], of the layer's dtype; output likewise.
    Raises TypeError or ValueError for a mask or an input that does not fit, BackendError (a ValueError) for a
    backend that is not known or not usable here, and nn.Conv2d's errors for the rest.
    """

    _sizes = ("in_channels", "out_channels", "kernel_size", "groups")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t | str = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        mask: Tensor | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # Through nn.Conv2d, so that its checks, its defaults and its initial weights hold by construction.
        dense = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._copy_from_conv2d(dense, mask, backend)

    @classmethod
    def from_dense(cls, module: nn.Conv2d, mask: Tensor | None, backend: str = "auto") -> SparseConv2d:
        """A sparse copy of `module`, which may be pruned by torch.nn.utils.prune and is left as it is.

        Weights where `mask` is False are dropped; None keeps all. Hooks, extra buffers and attributes come along.
        Errors as for the class, and for what cannot come along, such as a hook on a parameter.
        """
        check_dense(module, nn.Conv2d, SparseConv2d)
        layer = cls.__new__(cls)
        SparseLayer.__init__(layer)
        layer._copy_from_conv2d(module, mask, backend)
        copy_extras(module, nn.Conv2d, layer)
        return layer

    def to_dense(self) -> nn.Conv2d:
        """A dense copy of this layer, pruned weights 0, with its hooks, extra buffers and attributes.

        Raises ValueError for what cannot come along, such as a hook on a parameter.
        """
        check_nothing_is_lost(self, SparseConv2d, nn.Conv2d)
        dense: nn.Conv2d = skip_init(
            nn.Conv2d,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bias is not None,
            self.padding_mode,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        self._copy_to(dense)
        copy_extras(self, SparseConv2d, dense)
        return dense

    def forward(self, input: Tensor) -> Tensor:
        """[N, in_channels, H, W] or [in_channels, H, W] -> [N, out_channels, H_out, W_out], or without N."""
        followers = self._followers
        return self._output(input) if followers is None else self._waiting(input, followers)

    def _by_operator(self, input: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        padding = (self._input_padding, self.padding_mode)
        return ops.conv2d(input, self.values, bias, self.plan, self.computed_by, *padding, relu)

    def _by_node(self, input: Tensor, relu: bool, bias_apart: bool) -> Tensor | None:
        # The node pads as the operator does, not before it.
        return None if any(self._input_padding) else super()._by_node(input, relu, bias_apart)

    def _output_shape(self, input: Tensor) -> tuple[int, ...]:
        left, right, top, bottom = self._input_padding
        batch, _, height, width = input.shape
        return batch, self.out_channels, *self.spec.output_size(height + top + bottom, width + left + right)

    def extra_repr(self) -> str:
        """nn.Conv2d's words, without defaults, then sparsity and backend."""
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding not in ((0, 0), "valid"):
            words.append(f"padding={self.padding!r}")
        if self.dilation != (1, 1):
            words.append(f"dilation={self.dilation}")
        if self.groups != 1:
            words.append(f"groups={self.groups}")
        if self.bias is None:
            words.append("bias=False")
        if self.padding_mode != "zeros":
            words.append(f"padding_mode={self.padding_mode}")
        return ", ".join([*words, f"sparsity={self.sparsity:.2%}, backend={self.backend}"])

    def _copy_from_conv2d(self, dense: nn.Conv2d, mask: Tensor | None, backend: str) -> None:
        self.in_channels = dense.in_channels
        self.out_channels = dense.out_channels
        self.kernel_size: tuple[int, int] = dense.kernel_size  # type: ignore[assignment]
        self.stride: tuple[int, int] = dense.stride  # type: ignore[assignment]
        self.padding: tuple[int, int] | str = dense.padding  # type: ignore[assignment]
        self.dilation: tuple[int, int] = dense.dilation  # type: ignore[assignment]
        self.groups = dense.groups
        self.padding_mode: PaddingMode = dense.padding_mode
        self._set_spec()
        self._copy_from(dense, mask, backend)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("stride", "padding", "dilation", "padding_mode") and "spec" in vars(self):
            # As nn.Conv2d, which reads them at each forward pass; what is assigned may be one number, too.
            self._set_spec()
            self._plan = None
            self._pack()

    def _set_spec(self) -> None:
        own_padding, self._input_padding = self._split_padding()
        self.spec = LayerSpec(
            "conv2d",
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            _pair(self.stride),
            own_padding,
            _pair(self.dilation),
            self.groups,
        )

    def _split_padding(self) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """The operator's zero padding (rows, columns), and the rest before it (left, right, top, bottom)."""
        if self.padding == "valid":
            sides = [(0, 0), (0, 0)]
        elif self.padding == "same":
            totals = [
                dilation * (size - 1) for dilation, size in zip(_pair(self.dilation), self.kernel_size, strict=True)
            ]
            # Of an odd total, nn.Conv2d puts the larger half at the end.
            sides = [(total // 2, total - total // 2) for total in totals]
        else:
            sides = [(int(size), int(size)) for size in _pair(self.padding)]
        (top, bottom), (left, right) = sides
        if self.padding_mode == "zeros" and (top, left) == (bottom, right):
            return (top, left), (0, 0, 0, 0)
        return (0, 0), (left, right, top, bottom)
