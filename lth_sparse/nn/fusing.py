"""fuse: find what stands next to each other between convolutions, and let it be computed together."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from lth_sparse.nn.clamps import RELU
from lth_sparse.nn.following import (
    ADDITIONS,
    NORMS,
    RELUS,
    CannotFollowError,
    bounds_of,
    follow,
    holds,
    is_pool,
    module_of,
    only_user,
)
from lth_sparse.nn.fused_modules import FusedBatchNorm2d, FusedReLU
from lth_sparse.nn.fused_operators import UNUSABLE
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.nn.sparse_linear import SparseLinear
from lth_sparse.nn.watched import hooked
from lth_sparse.system.messages import say

_MAKE_A_NEW_TENSOR = (nn.Conv2d, nn.BatchNorm2d, SparseLayer)
_STARTS = (*NORMS, *RELUS, SparseConv2d, SparseLinear)


def fuse(model: nn.Module) -> nn.Module:
    """Let BatchNorm2d and sparse layers, each with what follows it, and ReLU with a 2x2 max-pool, run as one, in place.

    What may follow a BatchNorm2d is an addition, ReLU, ReLU6 or Hardtanh, or both, or ReLU and a 2x2 max-pool; what may
    follow a sparse layer is ReLU, or ReLU and the pool, and the bias's gradient is part of theirs. They are found by
    following `model` (torch.fx), and computed together on the CPU in float32, training or not; everything else, ReLU
    and pools of few numbers, and all on every other device, is left to PyTorch. Names of modules, parameters and the
    state dict stay as they are, outputs and gradients do up to rounding. A module with hooks is not fused, nor is what
    cannot be followed, and a line on standard error names each. There is no second derivative.

    Returns `model`. It can be fused again after a change.
    """
    if UNUSABLE:
        say(f"lth.fuse: nothing is fused: {UNUSABLE}")
        return model
    found: dict[nn.Module, list[_Chain | None]] = defaultdict(list)
    remarks: list[str] = []
    for name, root, graph in _graphs(model, remarks):
        for node, start in _starts(graph, root):
            found[start].append(_chain(node, root))
        remarks += _watched(name, graph, root)
    for start, chains in found.items():
        chain = chains[0]
        if chain is None or any(other is None or other.kind != chain.kind for other in chains):
            continue
        followers = tuple(dict.fromkeys(module for each in chains if each for module in each.followers))
        if hooked(start) or any(map(hooked, followers)):
            continue
        _convert(start, chain, followers, all(each.alone for each in chains if each))
    for remark in dict.fromkeys(remarks):
        say(f"lth.fuse: {remark}")
    return model


@dataclass(frozen=True)
class _Chain:
    """What follows a BatchNorm, a sparse layer or a ReLU: modules, and what they do; alone: no other sees the input."""

    followers: tuple[nn.Module, ...]
    adds: bool
    clamps: bool
    pools: bool
    alone: bool

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        return self.adds, self.clamps, self.pools


def _convert(start: nn.Module, chain: _Chain, followers: tuple[nn.Module, ...], alone: bool) -> None:
    # By their classes, so that names, hooks, and references to them stay what they are. The followers are in a tuple,
    # for nn.Module takes a module for a part of this one.
    if isinstance(start, SparseLayer):
        start._followers, start._pools = followers, chain.pools
        return
    if isinstance(start, nn.BatchNorm2d):
        start.__class__ = FusedBatchNorm2d
        start.__dict__.update(adds=chain.adds, clamps=chain.clamps)
    else:
        start.__class__ = FusedReLU
        start.__dict__.update(alone=alone)
    start.__dict__.update(followers=followers, pools=chain.pools)


def _graphs(model: nn.Module, remarks: list[str]) -> Iterator[tuple[str, nn.Module, fx.Graph]]:
    """(name, module, graph) of the largest modules that can be followed."""
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if isinstance(module, torch.jit.ScriptModule) or not holds(module, _STARTS):
            continue
        try:
            graph = follow(module, _STARTS)
        except CannotFollowError as error:
            remarks.append(f"{name or 'the model'} ({type(module).__name__}) cannot be followed as a whole: {error}")
            waiting += [(f"{name}.{child}".lstrip("."), part) for child, part in module.named_children()]
            continue
        yield name, module, graph
        steps = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module")
        waiting += [(f"{name}.{step}".lstrip("."), module.get_submodule(step)) for step in steps]


def _starts(graph: fx.Graph, root: nn.Module) -> Iterator[tuple[fx.Node, nn.Module]]:
    for node in graph.nodes:
        module = module_of(node, root)
        if module is not None and type(module) in _STARTS:
            yield node, module


def _chain(start: fx.Node, root: nn.Module) -> _Chain | None:
    """What can be computed together with the module that `start` calls; None where nothing can."""
    norm, layer = type(module_of(start, root)) in NORMS, isinstance(module_of(start, root), SparseLayer)
    clamp: fx.Node | None = only_user(start) if norm or layer else start
    adds = norm and clamp is not None and _adds_to(start, clamp, root)
    if adds and clamp is not None:
        clamp = only_user(clamp)
    bounds = bounds_of(clamp, root) if clamp is not None else None
    pool = only_user(clamp) if clamp is not None and bounds == RELU and not adds else None
    pools = pool is not None and is_pool(pool, root)
    if not norm and not (bounds == RELU if layer else pools):
        return None
    clamps = (norm or layer) and bounds is not None
    steps = (clamp if clamps else None, pool if pools else None)
    followers = tuple(module for node in steps if node is not None and (module := module_of(node, root)) is not None)
    (before,) = start.all_input_nodes[:1] or (None,)
    alone = before is not None and len(before.users) == 1 and isinstance(module_of(before, root), _MAKE_A_NEW_TENSOR)
    return _Chain(followers, adds, clamps, pools, alone)


def _adds_to(norm: fx.Node, node: fx.Node, root: nn.Module) -> bool:
    """Whether `node` adds something to the output of `norm`: of two BatchNorms that are added, the first is meant."""
    if node.op != "call_function" or node.target not in ADDITIONS:
        return False
    if len(node.args) != 2 or node.kwargs:
        return False
    first, second = node.args
    if first is norm:
        return isinstance(second, fx.Node) and second is not norm
    if not isinstance(first, fx.Node) or node.target is operator.iadd:  # identity += output changes the identity.
        return False
    return type(module_of(first, root)) not in NORMS or only_user(first) is not node


def _watched(name: str, graph: fx.Graph, root: nn.Module) -> Iterator[str]:
    """A remark for each module with hooks that keeps something from being fused."""
    for node, start in _starts(graph, root):
        chain = _chain(node, root)
        for module in (start, *chain.followers) if chain else ():
            if hooked(module):
                called = next(n for n, each in root.named_modules() if each is module)
                yield f"{f'{name}.{called}'.lstrip('.')} has hooks: it is not fused"
