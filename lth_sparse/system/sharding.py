"""Parameters of which a process holds a part, as FSDP leaves them between the passes of their module."""

from __future__ import annotations

from torch import Tensor, nn

GATHER = (
    "do this before the model is sharded, or to one that is not, with the state dict that "
    "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)) gathers"
)


def check_whole(module: nn.Module, key: str, fits: bool, name: str | None = None) -> None:
    """Raise ValueError, under its name, when the parameter `key` of `module` is a part of what the layer computes with.

    fits: whether it has the size that it should have.
    """
    parameter = module._parameters.get(key)
    if parameter is None:
        sharded = _is_freed(vars(module).get(key))
    else:
        sharded = is_distributed(parameter) or (not fits and hasattr(parameter, "_fsdp_flattened"))
    if sharded:
        raise ValueError(f"{name or key}: got one that FSDP has sharded, expected a whole one: {GATHER}")


def is_distributed(tensor: Tensor) -> bool:
    """Whether it is a DTensor, as fully_shard makes parameters. To import the class takes half a second."""
    return hasattr(tensor, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Whether FullyShardedDataParallel or fully_shard has sharded parameters of `model`."""
    if any(is_distributed(parameter) for parameter in model.parameters()):
        return True
    return any("_fsdp_wrapped_module" in module._modules for module in model.modules())


def _is_freed(attribute: object) -> bool:
    """FullyShardedDataParallel leaves an attribute in place of a parameter, a view of memory that it frees: to read it
    would end the process."""
    return isinstance(attribute, Tensor) and attribute.numel() > 0 and attribute.untyped_storage().size() == 0
