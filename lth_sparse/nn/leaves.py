"""Modules that torch.fx records as one step, which it does of itself only with those of torch.nn."""

from __future__ import annotations

from torch import fx, nn


def as_leaf(module: nn.Module, x: fx.Proxy) -> fx.Proxy:
    """The call of `module`, for its forward to return when it is given what stands for a tensor in a trace."""
    name = x.tracer.path_of_module(module)  # type: ignore[attr-defined]
    if not name:
        raise TypeError(
            f"torch.fx: got a {type(module).__name__} to trace, which is one step of a graph, expected a model that it "
            "is part of: torch.nn.Sequential(layer)"
        )
    return x.tracer.create_proxy("call_module", name, (x,), {})
