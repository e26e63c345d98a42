"""What SparseConv2d and SparseLinear have in common: values, mask, plan and state dict."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.backends import registry
from lth_sparse.backends.base import Plan
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern, check_bool
from lth_sparse.system.errors import BackendError


class SparseLayer(nn.Module):
    """A layer whose parameter is its live weights. Made by its subclasses.

    values: nn.Parameter [nnz], the live weights in row-major order of the mask.
    mask: bool, the dense weight's shape. Fixed: it changes only when a state dict brings another one.
    bias: nn.Parameter [out] or None.
    """

    spec: LayerSpec
    values: nn.Parameter
    mask: Tensor
    bias: nn.Parameter | None

    def _copy_from(self, dense: nn.Conv2d | nn.Linear, mask: Tensor | None, backend: str) -> None:
        """Copy the dense layer's numbers; `mask` None means that every weight is live."""
        weight, bias = effective(dense, "weight").detach(), effective(dense, "bias")
        self._pattern: Pattern | None = None
        self._plan: Plan | None = None
        self._backend: str
        self._computed_by: str
        # Copies keep the layer its own: writing to the dense layer or the caller's mask must not reach it.
        if mask is None:
            # Without a pattern, so that an unpruned layer can be made on the meta device.
            self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device))
            values = weight.flatten().clone()
        else:
            check_mask(mask, weight)
            self.register_buffer("mask", mask.detach().clone(memory_format=torch.contiguous_format))
            values = self.pattern.gather(weight).clone()
        self.values = nn.Parameter(values, requires_grad=_original(dense, "weight").requires_grad)
        self.register_parameter("bias", None)
        if bias is not None:
            trained = _original(dense, "bias").requires_grad
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=trained)
        self.train(dense.training)
        self.backend = backend

    def _copy_to(self, dense: nn.Conv2d | nn.Linear) -> None:
        """The way back: copy this layer's numbers into a dense layer of its shape."""
        with torch.no_grad():
            dense.weight.copy_(self.weight)
            if self.bias is not None and dense.bias is not None:
                dense.bias.copy_(self.bias)
                dense.bias.requires_grad_(self.bias.requires_grad)
        dense.weight.requires_grad_(self.values.requires_grad)
        dense.train(self.training)

    @property
    def pattern(self) -> Pattern:
        """The index structure of the mask, worked out once per mask."""
        if self._pattern is None or self._pattern.mask is not self.mask:
            self._pattern = Pattern.from_mask(self.mask)
        return self._pattern

    @property
    def plan(self) -> Plan:
        """The plan for the mask, packed once per mask, device and backend, before it is needed, by `computed_by`.

        Raises BackendError when the backend cannot be used on the layer's device.
        """
        if self._plan is None or self._plan.pattern.mask is not self.mask:
            self._pack()
        if self._plan is None:
            raise BackendError(f'backend "{self._backend}" cannot compute {self}: {self._refusal()}')
        return self._plan

    def _pack(self) -> None:
        """Renew the plan if it is out of date; there is none while the backend cannot compute this layer.

        Whatever changes the mask, the backend, the dtype or the device calls it, so that forward finds the
        plan made: packing is nothing that torch.compile could trace.
        """
        if self._refusal():
            self._plan = None
            return
        name, reason = self._backend, self._unsupported_by(self._backend)
        if reason:
            name = "dense"
            _say_once(f'backend "{self._backend}" leaves such a layer to masked dense PyTorch: {reason}')
        if self._plan is None or self._plan.pattern is not self.pattern or self._computed_by != name:
            self._plan = registry.get(name).pack(self.pattern, self.spec)
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
    def weight(self) -> Tensor:
        """The dense weight, pruned positions exactly 0: a new tensor at each access, differentiable."""
        return self.pattern.scatter(self.values).clone()

    @property
    def sparsity(self) -> float:
        """Pruned weights over all weights, in [0, 1]."""
        return 1.0 - self.values.numel() / self.mask.numel()

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLayer:
        super()._apply(fn, recurse)
        self._pack()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles work the indices out again: plans may hold what cannot be pickled.
        return {**self.__dict__, "_pattern": None, "_plan": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles from before layers could be left to dense have no _computed_by.
        super().__setstate__({"_computed_by": state.get("_backend"), **state})
        self._pack()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Also load a dense `weight`, or torch.nn.utils.prune's `weight_orig` and `weight_mask`.

        A dense weight is read at this layer's live positions. A mask that comes along replaces this layer's,
        and `values` takes its size: it stays the same Parameter, but an optimizer's state for it no longer
        fits.
        """
        own = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        try:
            self._translate(own, prefix)
        except (TypeError, ValueError) as error:
            error_msgs.append(f"{prefix}{error}")
            return
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._pack()

    def _translate(self, state: dict[str, Any], prefix: str) -> None:
        """Turn whatever describes the weight in `state` into `values` and `mask`, and take over that mask."""
        weight_mask = state.get(f"{prefix}weight_mask")
        for name in ("weight", "bias"):
            if f"{prefix}{name}_orig" in state and f"{prefix}{name}_mask" in state:
                kept = state.pop(f"{prefix}{name}_mask")
                state[prefix + name] = state.pop(f"{prefix}{name}_orig") * kept
        weight = state.pop(prefix + "weight", None)
        if weight is not None:
            if weight.shape != self.mask.shape:
                raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected {tuple(self.mask.shape)}")
            state[prefix + "mask"] = self.mask if weight_mask is None else weight_mask != 0
        mask = state.get(prefix + "mask")
        if mask is not None:
            mask = mask.to(self.mask.device)
            check_mask(mask, self.mask)
            # After to_empty, the mask may be anything, and be the right one by chance.
            if not torch.equal(mask, self.mask) or self.values.numel() != self.pattern.nnz:
                self._take_mask(mask)
        if weight is not None:
            state[prefix + "values"] = self.pattern.gather(weight.to(self.mask.device))

    def _take_mask(self, mask: Tensor) -> None:
        self.mask = mask.clone()
        # Through .data, so that `values` stays the Parameter that optimizers and ties hold.
        self.values.data = self.values.new_zeros(self.pattern.nnz)
        self.values.grad = None


_said: set[str] = set()


def _say_once(text: str) -> None:
    """Warn, the first time that there is reason to: a network has many layers that are alike."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)


def check_mask(mask: Tensor, weight: Tensor, name: str = "mask") -> None:
    """Refuse, under its name, a mask that is not bool, dense, and of the weight's shape and device."""
    check_bool(mask, name)
    if mask.shape != weight.shape:
        raise ValueError(f"{name}: got shape {tuple(mask.shape)}, expected the weight's, {tuple(weight.shape)}")
    if mask.device != weight.device:
        raise ValueError(
            f"{name}: got a tensor on {mask.device}, expected {weight.device}, where the weight is: "
            f'mask.to("{weight.device}")'
        )


def effective(dense: nn.Module, name: str) -> Tensor:
    """The weight or bias the layer computes with: under torch.nn.utils.prune, the original times its mask.

    prune's own product is renewed only by the next forward pass, so it may be out of date.
    """
    original = _original(dense, name)
    return original * getattr(dense, f"{name}_mask") if f"{name}_orig" in dense._parameters else original


def _original(dense: nn.Module, name: str) -> Any:
    return getattr(dense, f"{name}_orig" if f"{name}_orig" in dense._parameters else name)
