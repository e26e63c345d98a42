"""The index structure of one mask: where the live weights are, worked out once and never per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pattern:
    """The live positions of one weight, in row-major order. Immutable; made by `Pattern.from_mask`.

    A row is one output channel; a column is one entry of the flattened rest,
    `in_channels / groups * kernel_height * kernel_width` for a convolution and `in_features` for a linear
    layer.
    """

    TENSORS: ClassVar[int] = 3
    """How many tensors a pattern consists of."""

    mask: Tensor
    """bool, the weight's dense shape: True where a weight is live. It must not be written to."""
    row_offsets: Tensor
    """int32 [rows + 1]: the live weights of row r are entries `row_offsets[r]` to `row_offsets[r + 1]`."""
    column_indices: Tensor
    """int32 [nnz]: the column of each live weight, ascending within a row."""

    @classmethod
    def from_mask(cls, mask: Tensor) -> Pattern:
        """Index `mask`: bool, [out, in / groups, kernel_height, kernel_width] or [out, in], on any device.

        The pattern keeps `mask` itself, not a copy, and lies on its device.
        Raises TypeError when `mask` is no bool tensor, ValueError when its rank is neither 2 nor 4, when it
        is empty, on the meta device, or when it has too many entries for int32 indices.
        """
        check_bool(mask)
        if mask.dim() not in (2, 4) or mask.numel() == 0:
            raise ValueError(
                f"mask: got shape {tuple(mask.shape)}, "
                "expected a non-empty [out, in / groups, kernel_height, kernel_width] or [out, in]"
            )
        if mask.is_meta:
            raise ValueError("mask: got one on the meta device, expected one with entries")
        if mask.numel() > torch.iinfo(torch.int32).max:
            raise ValueError(f"mask: got {mask.numel()} entries, expected fewer than 2^31")
        flat_positions = mask.flatten().nonzero().flatten()
        columns = mask.numel() // mask.shape[0]
        row_starts = torch.arange(0, mask.numel() + 1, columns, device=mask.device)
        row_offsets = torch.searchsorted(flat_positions, row_starts, out_int32=True)
        return cls(mask, row_offsets, flat_positions.remainder_(columns).to(torch.int32))

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern as a flat tuple, in the order of its fields: `Pattern(*pattern.tensors())` is the way back."""
        return self.mask, self.row_offsets, self.column_indices

    def describes(self, mask: Tensor) -> bool:
        """Whether these are the live positions of `mask`: bool, of the pattern's shape, on its device."""
        if int(mask.count_nonzero()) != self.nnz:
            return False
        if self.nnz == mask.numel():
            return True
        per_row = self.row_offsets.diff()
        rows = torch.repeat_interleave(per_row, output_size=self.nnz)
        return bool(mask.reshape(len(per_row), -1)[rows, self.column_indices].all())

    def fits(self, mask: Tensor) -> bool:
        """Whether it is that of `mask`, whose shape and device may be others."""
        return mask.shape == self.shape and mask.device == self.mask.device and self.describes(mask)

    @property
    def flat_positions(self) -> Tensor:
        """int64 [nnz]: the position of each live weight in the flattened dense weight, ascending. Worked out at
        each access: kept, it would take twice a float32 weight's memory."""
        return self.mask.flatten().nonzero().flatten()

    @property
    def shape(self) -> torch.Size:
        """The dense weight's shape."""
        return self.mask.shape

    @property
    def nnz(self) -> int:
        """The number of live weights."""
        return self.column_indices.numel()

    @property
    def density(self) -> float:
        """Live weights over all weights, in [0, 1]."""
        return self.nnz / self.mask.numel()

    @property
    def sparsity(self) -> float:
        """Pruned weights over all weights, in [0, 1]."""
        return 1.0 - self.density

    def gather(self, dense: Tensor) -> Tensor:
        """Take the live entries of `dense` (the pattern's shape, any dtype): values [nnz], row-major.

        The result may share memory with `dense`: copy it before writing to it. Differentiable.
        """
        if dense.shape != self.shape:
            raise ValueError(f"dense: got shape {tuple(dense.shape)}, expected {tuple(self.shape)}")
        flat = dense.reshape(-1)
        # A round before the first pruning has every weight live, and must not pay for an identity gather.
        return flat if self.nnz == flat.numel() else flat.index_select(0, self.flat_positions)

    def scatter(self, values: Tensor) -> Tensor:
        """Put `values` ([nnz], any dtype) into a dense weight of the pattern's shape, exactly 0 where pruned.

        The result may share memory with `values`: copy it before writing to it. Differentiable.
        """
        if values.shape != (self.nnz,):
            raise ValueError(f"values: got shape {tuple(values.shape)}, expected ({self.nnz},)")
        if self.nnz == self.mask.numel():
            return values.view(self.shape)
        flat = values.new_zeros(self.mask.numel())
        return flat.scatter_(0, self.flat_positions, values).view(self.shape)


def check_bool(mask: Tensor, name: str = "mask") -> None:
    """Raise TypeError, under `name`, when `mask` is no bool tensor, or a sparse one."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        remedy = "mask.bool()" if isinstance(mask, Tensor) else "torch.as_tensor(mask, dtype=torch.bool)"
        raise TypeError(f"{name}: got {given}, expected a tensor of dtype torch.bool: {remedy}")
    if mask.layout != torch.strided:
        raise TypeError(f"{name}: got layout {mask.layout}, expected a dense tensor: mask.to_dense()")
