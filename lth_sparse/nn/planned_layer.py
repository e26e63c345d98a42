"""A layer with a mask, and the plan by which its backend computes it: made once a mask, renewed with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lth_sparse import ops
from lth_sparse.backends import registry
from lth_sparse.backends.autograd_node import Node
from lth_sparse.backends.base import Plan
from lth_sparse.nn.traced_masks import is_fake, seen, unwrapped
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern, check_bool
from lth_sparse.system.errors import BackendError
from lth_sparse.system.sharding import check_whole


class PlannedLayer(nn.Module):
    """What knows its mask and its backend, and keeps its plan up to date with both. See `SparseLayer`."""

    spec: LayerSpec
    values: nn.Parameter
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._pattern: Pattern | None = None
        self._plan: Plan | None = None
        # Belongs to the plan; None where there is none for it.
        self._node: Node | None = None
        self._backend: str
        self._computed_by: str
        # What PyTorch counts up at each write to the mask, as it was when `_pattern` was last known to be the mask's.
        self._mask_version = -1

    @property
    def pattern(self) -> Pattern:
        """The index structure of the mask, worked out once per mask."""
        known, mask = self._pattern, self.mask
        if known is not None and known.mask is mask and self._unwritten(mask):
            return known
        # What is worked out here outlives a transform of torch.func that may have asked.
        with torch._C._DisableFuncTorch():
            return self._pattern_of(unwrapped(mask))

    def _pattern_of(self, mask: Tensor) -> Pattern:
        known = self._pattern
        if known is not None and known.mask is mask:
            if self._unwritten(mask):
                return known
            # Whoever copies all buffers, as DistributedDataParallel does at each step, mostly writes what was there.
            if known.describes(mask):
                self._mask_version = mask._version
                return known
        # A mask that is unwrapped is not the layer's to keep.
        if known is not None and mask is not self.mask and known.fits(mask):
            return known
        if mask.is_inference():
            # Such a tensor counts no writes.
            with torch.inference_mode(False):
                mask = self._buffers["mask"] = mask.clone()
        self._mask_version = -1 if mask.is_meta else mask._version
        self._pattern = Pattern.from_mask(mask)
        self._node = None
        return self._pattern

    @property
    def plan(self) -> Plan:
        """The plan for the mask, packed once per mask, device and backend, before it is needed, by `computed_by`.

        Raises BackendError when the backend cannot be used on the layer's device, ValueError when the mask has
        another number of live weights than there are values.
        """
        # Where nn.Module would find it too, which is asked at each call.
        mask: Tensor = self._buffers["mask"]  # type: ignore[assignment]
        plan = self._plan
        if (
            plan is None
            or plan.pattern is not self._pattern
            or plan.pattern.mask is not mask
            or not self._unwritten(mask)
        ):
            if plan is not None and is_fake(mask) and mask.shape == plan.pattern.shape:
                return seen(plan, mask)
            self._pack()
        if self._plan is None:
            self._check_live()
            raise BackendError(f'backend "{self._backend}" cannot compute {self}: {self._refusal()}')
        return self._plan

    def _unwritten(self, mask: Tensor) -> bool:
        # What is compiled cannot read how often a tensor was written to: the operator looks, where it runs.
        return torch.compiler.is_compiling() or self._mask_version == mask._version

    def _check_live(self) -> None:
        """Raise ValueError when values are not those of the mask, which was written to, or when they are sharded."""
        fits = self.mask.is_meta or self.pattern.nnz == self.values.numel()
        check_whole(self, "values", fits)
        if not fits:
            raise ValueError(
                f"mask: got {self.pattern.nnz} live weights in place of {self.values.numel()}, the size of values, "
                "expected as many: to change their number, give both to load_state_dict"
            )

    def _pack(self) -> None:
        """Renew the plan if it is out of date; there is none while the backend cannot compute this layer.

        Whatever changes the mask, the backend, the dtype or the device calls it, so that forward finds the
        plan made: packing is nothing that torch.compile could trace.
        """
        if self._refusal() or self.pattern.nnz != self.values.numel():
            self._plan = self._node = None
            return
        name, reason = self._backend, self._unsupported_by(self._backend)
        if reason:
            name = "dense"
            _say_once(f'backend "{self._backend}" leaves such a layer to masked dense PyTorch: {reason}')
        pattern = self.pattern
        if self._plan is None or self._plan.pattern is not pattern or self._computed_by != name:
            with torch._C._DisableFuncTorch():
                self._plan = registry.get(name).pack(pattern, self.spec)
                self._node = ops.node(self._plan, name)
            self._computed_by = name

    @property
    def computed_by(self) -> str:
        """The backend that computes this layer: its own, or "dense" where that does not support the layer or dtype."""
        return self._computed_by

    def _refusal(self) -> str:
        """Why neither the backend nor dense in its place can compute this layer, "" if one can."""
        if self.mask.is_meta:
            return "it is on the meta device, where its mask has no entries"
        try:
            return registry.get(self._backend).refuses(self.values.device) or self._unsupported_by("dense")
        except BackendError as error:
            # A layer may have been pickled where there was another choice of backends.
            return str(error)

    def _unsupported_by(self, backend: str) -> str:
        """Why the backend of this name does not support this layer in its dtype, "" if it does."""
        supported, reason = registry.get(backend).supports(self.spec, self.values.dtype, self.values.device)
        return "" if supported else reason

    @property
    def backend(self) -> str:
        """The backend's name. Setting it raises BackendError when it is not known or not usable here."""
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        registry.resolve(name)
        self._backend = self._computed_by = name
        self._plan = None
        self._pack()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "mask":
            check_bool(value)
            if value.shape != self.spec.weight_shape:
                expected = self.spec.weight_shape
                raise ValueError(f"mask: got shape {tuple(value.shape)}, expected the weight's, {expected}")
        super().__setattr__(name, value)
        if name == "mask":
            self._pack()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        check_dtype(fn(self.values.new_empty(0)).dtype)
        super()._apply(fn, recurse)
        self._pack()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles work the indices out again: plans may hold what cannot be pickled.
        return {**self.__dict__, "_pattern": None, "_plan": None, "_node": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles of 0.1.0 have no _mask_version, those from before layers could be left to dense no _computed_by.
        super().__setstate__({"_mask_version": -1, "_node": None, "_computed_by": state.get("_backend"), **state})
        self._pack()


def check_dtype(dtype: torch.dtype, name: str = "weight") -> None:
    """Refuse, under its name, what no backend computes in, before a layer has it."""
    if not dtype.is_floating_point:
        raise TypeError(f"{name}: got dtype {dtype}, expected a real floating-point one: keep such a layer dense")


_said: set[str] = set()


def _say_once(text: str) -> None:
    """Warn, the first time that there is reason to: a network has many layers that are alike."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)
