"""What a layer has beyond its kind (hooks, buffers, attributes), and how the layer that replaces it takes it over."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lth_sparse.nn.planned_layer import PlannedLayer, check_dtype
from lth_sparse.system.sharding import check_whole

COUNTERPART = {
    "weight": "values",
    "weight_orig": "values",
    "values": "weight",
    "bias": "bias",
    "bias_orig": "bias",
}
"""Name of a parameter -> its name in the layer that replaces it. `_orig`: under torch.nn.utils.prune."""

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def check_dense(module: nn.Module, kind: type[nn.Module], becomes: type[nn.Module], name: str = "module") -> None:
    """Refuse, under its name, what a `becomes` cannot take over from `module`, expected to be a `kind`."""
    if isinstance(module, kind):
        check_weight_whole(module, name)
    weight = getattr(module, "weight", None) if not parametrize.is_parametrized(module) else None
    if isinstance(weight, Tensor) and is_lazy(weight):
        raise TypeError(
            f"{name}: got a {type(module).__name__}, which has no weight yet, expected torch.nn.{kind.__name__}: "
            "run a batch through the model first"
        )
    if isinstance(module, kind):
        check_nothing_is_lost(module, kind, becomes, name)
    if type(module) is not kind:
        raise TypeError(f"{name}: got {type(module).__name__}, expected torch.nn.{kind.__name__}")
    if isinstance(weight, Tensor):
        check_dtype(weight.dtype, name)


def check_weight_whole(module: nn.Module, name: str) -> None:
    """Refuse, under its name, a dense layer of whose weight this process holds a part."""
    weight = module._parameters.get("weight")
    fits = weight is None or is_lazy(weight) or weight.dim() > 1
    check_whole(module, "weight", fits, f"the weight of {name}")


def check_nothing_is_lost(
    layer: nn.Module, kind: type[nn.Module], becomes: type[nn.Module], name: str = "module"
) -> None:
    """Raise ValueError, under its name, when `layer`, a `kind`, has what a `becomes` in its place would not have."""
    if isinstance(layer, PlannedLayer):
        layer._check_live()
    lost = _lost(layer, kind, becomes)
    if lost:
        what, remedy = lost
        raise ValueError(f"{name}: got {what}, which a {becomes.__name__} would not have: {remedy}")


def copy_extras(old: nn.Module, kind: type[nn.Module], new: nn.Module) -> None:
    """Give `new` what `old`, a `kind`, has beyond it: hooks, copies of its buffers, and the same attributes."""
    for name in _HOOKS:
        for key, hook in getattr(old, name).items():
            if not isinstance(hook, prune.BasePruningMethod):  # Which the mask stands for.
                getattr(new, name)[key] = _bound_to(new, hook)
    new._is_full_backward_hook = old._is_full_backward_hook
    attributes, buffers = _extras(old, kind)
    for name in attributes:
        new.__dict__[name] = old.__dict__[name]
    for name in buffers:
        buffer = old._buffers[name]
        new.register_buffer(
            name, None if buffer is None else buffer.clone(), name not in old._non_persistent_buffers_set
        )
    for name, parameter in old._parameters.items():
        replaced = new._parameters.get(COUNTERPART[name])
        if parameter is not None and replaced is not None:
            # A tensor that a tool keeps at a parameter has the shape that the parameter had.
            replaced.__dict__.update({k: v for k, v in vars(parameter).items() if not isinstance(v, Tensor)})


def take_over(old: nn.Module, kind: type[nn.Module], new: nn.Module) -> None:
    """Let `new`, a copy, stand for `old`: handles remove its hooks, and buffers stay those that others share."""
    for name in _HOOKS:
        # A handle knows the dict that its hook is in.
        theirs, copies = getattr(old, name), getattr(new, name)
        setattr(old, name, theirs.copy())
        theirs.clear()
        theirs.update(copies)
        setattr(new, name, theirs)
    for name in _extras(old, kind)[1]:
        new._buffers[name] = old._buffers[name]


def _lost(layer: nn.Module, kind: type[nn.Module], becomes: type[nn.Module]) -> tuple[str, str] | None:
    """What `layer` has that `becomes` cannot have, and what to do; None where there is nothing."""
    around = "keep it in a module around the layer"
    if parametrize.is_parametrized(layer):
        key = next(iter(layer.parametrizations))  # type: ignore[arg-type]
        remedy = f'torch.nn.utils.parametrize.remove_parametrizations(layer, "{key}") first'
        return f'a parametrization of "{key}"', remedy
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            norm = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
            return f"torch.nn.utils.{norm}", f"torch.nn.utils.remove_{norm}(layer) first"
    for key, parameter in layer._parameters.items():
        if key not in COUNTERPART:
            return f'the extra parameter "{key}"', around
        if parameter is not None and (parameter._backward_hooks or parameter._post_accumulate_grad_hooks):
            remedy = "remove it, and register it on the parameter of the layer that comes instead"
            return f'a hook on its parameter "{key}"', remedy
    for key in layer._modules:
        return f'the submodule "{key}"', around
    if layer._backward_hooks and layer._is_full_backward_hook is False:
        return "a hook of register_backward_hook", "use register_full_backward_hook"
    attributes, buffers = _extras(layer, kind)
    for key in attributes:
        if key == "_compiled_call_impl":
            return "layer.compile()", "compile afterwards"
        if hasattr(kind, key):
            return f'a "{key}" of its own', around
    for key in (*attributes, *buffers):
        if hasattr(becomes, key) or key in COUNTERPART or any(key in names for names in _standard(becomes)):  # type: ignore[arg-type]
            return f'an attribute "{key}", a name that is taken there', "rename or delete it"
    return None


def _extras(layer: nn.Module, kind: type[nn.Module]) -> tuple[list[str], list[str]]:
    """The names of the attributes and of the buffers that not every `kind` has; torch.nn.utils.prune's are none."""
    pruned = [key for key in ("weight", "bias") if f"{key}_orig" in layer._parameters]
    attributes, buffers = _standard(kind)  # type: ignore[arg-type]
    return (
        [name for name in vars(layer) if name not in attributes and name not in pruned],
        [name for name in layer._buffers if name not in buffers and name.removesuffix("_mask") not in pruned],
    )


@cache
def _standard(kind: Callable[..., nn.Module]) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the attributes and of the buffers that every `kind` has."""
    # The third is a kernel's size, or says that there is a bias. On the meta device no random number is drawn.
    layer = kind(1, 1, 1, device="meta")
    return frozenset(vars(layer)), frozenset(layer._buffers)


def _bound_to(layer: nn.Module, hook: Any) -> Any:
    """The hook itself, but for those before loading: torch binds them to the module that they are called with."""
    return type(hook)(hook.hook, layer) if getattr(hook, "with_module", False) else hook
