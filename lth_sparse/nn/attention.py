"""Layers inside torch's attention modules whose weight is used without the layer being called.

nn.MultiheadAttention always computes so with its out_proj; nn.TransformerEncoderLayer with linear1 and linear2, in its
fast path alone: in eval mode, where no gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from torch import nn

NEVER_CALLED = "nn.MultiheadAttention computes with its weight and never calls it"


def never_called(model: nn.Module) -> set[nn.Module]:
    """The output projections of nn.MultiheadAttention. A subclass with a forward of its own may call its."""
    return {
        module.out_proj
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward
    }


def passed_over(model: nn.Module, sparse: Container[nn.Module]) -> Iterator[str]:
    """The names of layers among `sparse` that a fast path passes over: it takes a dense weight, made at each call."""
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.TransformerEncoderLayer)
            and type(module).forward is nn.TransformerEncoderLayer.forward
            and module.self_attn.batch_first
        ):
            for key in ("linear1", "linear2"):
                if getattr(module, key) in sparse:
                    yield f"{name}.{key}" if name else key
