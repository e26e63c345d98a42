"""What SparseConv2d and SparseLinear have in common: values, mask, dense weight and state dict."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from lth_sparse.backends.autograd_library import call as _call
from lth_sparse.nn import beginnings
from lth_sparse.nn.dense_weight import DenseWeight
from lth_sparse.nn.foreign_tools import Parameters, Parametrizations, refuse_weight
from lth_sparse.nn.fused_operators import is_unwatched
from lth_sparse.nn.leaves import as_leaf
from lth_sparse.nn.planned_layer import PlannedLayer, check_dtype
from lth_sparse.nn.unfinished import Unfinished
from lth_sparse.nn.watched import is_watched
from lth_sparse.plans.pattern import check_bool
from lth_sparse.system.sharding import check_whole

_is_compiling = torch.compiler.is_compiling


class SparseLayer(PlannedLayer):
    """A layer whose parameter is its live weights. Made by its subclasses.

    values: nn.Parameter [nnz], the live weights in row-major order of the mask.
    mask: bool, the dense weight's shape.
    bias: nn.Parameter [out] or None.

    A state dict may bring another mask. One that is written in place counts from the next forward pass on: with as
    many live weights, the values are those of its live positions, in their order; with another number, and under
    torch.compile, that pass raises ValueError. What is written through `mask.data`, PyTorch counts nowhere: some
    backends see it and some do not, so do not write there.

    A state dict that brings a mask without values, under strict=False, keeps the values of the weights that were
    live and stay so; those newly live are 0.
    """

    bias: nn.Parameter | None
    _sizes: ClassVar[tuple[str, ...]]
    """Names of attributes that the mask's shape settles."""
    # Of `lth_sparse.fuse`: modules that compute ReLU, and the pool after it, together with a layer that waits for them;
    # None where it does not. Pickles from before have neither.
    _followers: tuple[nn.Module, ...] | None = None
    _pools: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._parameters = Parameters()
        self._followers = None
        self._pools = False

    def _copy_from(self, dense: nn.Conv2d | nn.Linear, mask: Tensor | None, backend: str) -> None:
        """Copy the dense layer's numbers; `mask` None means that every weight is live."""
        weight, bias = effective(dense, "weight").detach(), effective(dense, "bias")
        check_dtype(weight.dtype)
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
            dense.weight.copy_(self._scattered())
            if self.bias is not None and dense.bias is not None:
                dense.bias.copy_(self.bias)
                dense.bias.requires_grad_(self.bias.requires_grad)
        dense.weight.requires_grad_(self.values.requires_grad)
        dense.train(self.training)

    @property
    def weight(self) -> Tensor:
        """The dense weight, pruned positions exactly 0: a new tensor at each access, differentiable.

        Assigned a dense weight (the mask's shape, the layer's dtype and device), `values` takes over its live
        positions, in place; what it has at pruned ones is dropped. It is copied, never tied. To write into the
        tensor that is given raises RuntimeError. Raises TypeError or ValueError for a weight that does not fit.

        Its `grad` is a copy of that of `values`, 0 where pruned: of pruned weights none is computed.
        """
        return DenseWeight.of_layer(self._scattered().clone(), self._gradient)

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        if not isinstance(weight, Tensor):
            raise TypeError(f"weight: got {type(weight).__name__}, expected a tensor")
        if weight.shape != self.mask.shape:
            raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected {tuple(self.mask.shape)}")
        if weight.dtype != self.values.dtype:
            raise TypeError(f"weight: got dtype {weight.dtype}, expected {self.values.dtype}, the layer's own")
        if weight.device != self.values.device:
            raise ValueError(f"weight: got a tensor on {weight.device}, expected {self.values.device}")
        self._check_live()
        if "values" not in self._parameters:
            raise ValueError(
                'weight: got one to assign while "values" is made of another parameter, by a parametrization or '
                "torch.nn.utils.prune, expected values to be a parameter: remove that first"
            )
        with torch.no_grad():
            self.values.copy_(self.pattern.gather(weight))
        if isinstance(weight, nn.Parameter):
            self.values.requires_grad_(weight.requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._sizes and value != getattr(self, name, value):
            raise ValueError(
                f"{name}: got {value}, expected {getattr(self, name)}, as the layer was made: make another one"
            )
        # nn.Module would register a parameter of this name beside the property.
        if name == "weight":
            object.__setattr__(self, name, value)
        elif name == "parametrizations":
            super().__setattr__(name, Parametrizations(value))
        else:
            super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """nn.Module's; a weight of another name, as torch.nn.utils.prune makes one, would not be computed with."""
        if name in ("weight", "weight_orig"):
            refuse_weight()
        super().register_parameter(name, param)

    def _waiting(self, input: Tensor, followers: tuple[nn.Module, ...]) -> Any:
        """The output for `input`, not yet computed where it will be together with the ReLU that `fuse` found."""
        spec, values = self.spec, self._parameters.get("values")
        waits = (
            type(input) is Tensor
            # First, for a small layer has no time for the rest.
            and input.numel() * spec.out_channels >= beginnings.FEWEST_RECTIFIED * spec.in_channels
            and is_unwatched(input)
            and input.dim() == len(spec.weight_shape)
            and values is not None
            and values.dtype == input.dtype
            and not torch.is_autocast_enabled("cpu")
            and not is_watched(self, followers)
        )
        return Unfinished(beginnings.LayerOutput(input, self), pools=self._pools) if waits else self._output(input)

    def _output(self, input: Tensor, relu: bool = False, bias_apart: bool = False) -> Tensor:
        """The output for `input`, or ReLU of it. `bias_apart`: the bias's gradient is left to the caller."""
        if (output := self._by_node(input, relu, bias_apart)) is not None:
            return output
        if isinstance(input, Proxy):
            return as_leaf(self, input)
        bias = self.bias
        return self._by_operator(input, bias.detach() if bias_apart and bias is not None else bias, relu)

    def _by_operator(self, input: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        raise NotImplementedError

    def _output_shape(self, input: Tensor) -> tuple[int, ...]:
        raise NotImplementedError

    def _by_node(self, input: Tensor, relu: bool, bias_apart: bool) -> Tensor | None:
        """The layer's output by its node in C++, None where that is not for this call: see `autograd_library.call`."""
        if _is_compiling() or (node := self._node) is None:
            return None
        parameters = self._parameters
        try:
            values: Tensor | None = parameters["values"]
            bias: Tensor | None = parameters["bias"]
        except KeyError:  # Made by a parametrization, by torch.nn.utils.prune or for a replica.
            return None
        if bias_apart and bias is not None:
            bias = bias.detach()
        return _call(node.plan, input, values, bias, self._buffers["mask"], self._mask_version, relu)

    def _gradient(self) -> Tensor | None:
        gradient = self.values.grad
        return None if gradient is None else self.pattern.scatter(gradient).clone()

    def _scattered(self) -> Tensor:
        """The dense weight, which may share memory with `values`."""
        self._check_live()
        return self.pattern.scatter(self.values)

    def reset_parameters(self) -> None:
        """Draw weights and bias anew, in place: those that nn.Conv2d or nn.Linear would draw, at the live positions."""
        if self.values.numel() == self.mask.numel():
            # Nothing is pruned. Coming from the meta device, the mask may be anything.
            self.mask.fill_(True)
        dense = self.to_dense()
        dense.reset_parameters()
        self.weight = dense.weight.detach()
        if self.bias is not None and dense.bias is not None:
            with torch.no_grad():
                self.bias.copy_(dense.bias)

    def to_dense(self) -> nn.Conv2d | nn.Linear:
        """A dense copy of this layer, pruned weights 0."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script. What this gave it, it would put into the model itself."""
        raise RuntimeError(
            "a sparse layer: got torch.jit.script, which knows PyTorch's own operators alone, expected a dense model: "
            "give it lth_sparse.densify(copy.deepcopy(model))"
        )

    @property
    def sparsity(self) -> float:
        """Pruned weights over all weights, in [0, 1]."""
        return 1.0 - self.values.numel() / self.mask.numel()

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
            self._translate(own, prefix, assign=local_metadata.get("assign_to_params_buffers", False))
        except (TypeError, ValueError) as error:
            error_msgs.append(f"{prefix}{error}")
            return
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._pack()

    def _translate(self, state: dict[str, Any], prefix: str, assign: bool) -> None:
        """Turn whatever describes the weight in `state` into `values` and `mask`, and take over that mask.

        What is assigned stays on its own device, which need not be the layer's.
        """
        weight_mask = state.get(f"{prefix}weight_mask")
        for name in ("weight", "bias"):
            if f"{prefix}{name}_orig" in state and f"{prefix}{name}_mask" in state:
                kept = state.pop(f"{prefix}{name}_mask")
                state[prefix + name] = state.pop(f"{prefix}{name}_orig") * kept
        weight = state.pop(prefix + "weight", None)
        if weight is not None:
            check_whole(self, "values", self._pattern_fits())
            if weight.shape != self.mask.shape:
                raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected {tuple(self.mask.shape)}")
            device = weight.device if assign else self.mask.device
            state[prefix + "mask"] = self._mask_on(device) if weight_mask is None else weight_mask != 0
        mask = state.get(prefix + "mask")
        if mask is not None:
            check_bool(mask)
            check_mask(mask, mask.new_empty(self.mask.shape))
            if not assign:
                mask = mask.to(self.mask.device)
            # After to_empty, the mask may be anything, and be the right one by chance.
            current = mask.device == self.mask.device and self._pattern_fits() and torch.equal(mask, self.mask)
            if not current:
                self._take_mask(mask)
        if weight is not None:
            state[prefix + "values"] = self.pattern.gather(weight.to(self.mask.device))

    def _mask_on(self, device: torch.device) -> Tensor:
        """The layer's own mask. From the meta device, it comes back only where nothing is pruned."""
        if not self.mask.is_meta or device.type == "meta":
            return self.mask.to(device)
        if self.values.numel() != self.mask.numel():
            raise ValueError("mask: got none, and the layer's is on the meta device, expected one beside the weight")
        return torch.ones(self.mask.shape, dtype=torch.bool, device=device)

    def _pattern_fits(self) -> bool:
        """Whether mask and values belong together: they need not after to_empty, or a write to the mask."""
        return not self.mask.is_meta and self.pattern.nnz == self.values.numel()

    def _take_mask(self, mask: Tensor) -> None:
        check_whole(self, "values", self._pattern_fits())
        before = self.pattern.scatter(self.values.detach()) if self._pattern_fits() else None
        self.mask = mask.clone()
        if before is None or self.mask.device != before.device:
            put_numbers(self.values, self.values.new_zeros(self.pattern.nnz))
        else:
            put_numbers(self.values, self.pattern.gather(before).clone())
        self.values.grad = None


def put_numbers(values: nn.Parameter, numbers: Tensor) -> None:
    """Let `values` have these, of another size maybe: it stays the Parameter that optimizers and ties hold."""
    # A loss of before still holds the node that adds up gradients of the size of before, and a dtype that changes is
    # what lets PyTorch make another.
    other = torch.float64 if values.dtype == torch.float32 else torch.float32
    values.data = torch.empty(0, dtype=other, device=values.device)
    values.data = numbers


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
