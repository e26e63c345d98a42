"""Layers inside torch's attention modules whose weight is used without the layer being called.

nn.MultiheadAttention always computes so with its out_proj. The fast path of nn.TransformerEncoderLayer, in eval mode
where no gradient is asked for, would with linear1 and linear2; but it is not taken where a weight is more than a plain
tensor, as that of a sparse layer is (dense_weight.py).
"""

from __future__ import annotations

from torch import nn

NEVER_CALLED = "nn.MultiheadAttention computes with its weight and never calls it"


def never_called(model: nn.Module) -> set[nn.Module]:
    """The output projections of nn.MultiheadAttention. A subclass with a forward of its own may call its."""
    return {
        module.out_proj
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward
    }
