"""A network's graph for inference: BatchNorm folded into the layers before it, ReLU into the sparse ones' store."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.nn.utils import prune

from lth_sparse.inference.folding import LAYERS, Layer, VectorsOnly, fold, folds
from lth_sparse.inference.rectified import RECTIFIED, ReLUMaxPool2d
from lth_sparse.nn import forms
from lth_sparse.nn.following import (
    NORMS,
    RELUS,
    CannotFollowError,
    follow,
    holds,
    is_pool,
    is_relu,
    module_of,
    only_user,
)
from lth_sparse.nn.watched import hooked

_SOUGHT = (*NORMS, *RELUS, nn.BatchNorm1d, *RECTIFIED)


@dataclass
class Remarks:
    """What stays as it is, by name, and why."""

    prefix: str = ""
    said: list[str] = field(default_factory=list)
    unfollowed: str = ""
    """Why the model cannot be followed as a whole, "" if it can."""

    def add(self, name: str, text: str) -> None:
        self.said.append(f"{f'{self.prefix}{name}'.rstrip('.') or 'the model'} {text}")


def for_running(model: nn.Module, remarks: Remarks) -> nn.Module:
    """A copy of `model` with what can be folded folded. What cannot be followed stays, and its parts are tried."""
    if not holds(model, _SOUGHT):
        return _copied(model, {})
    if not hooked(model):
        try:
            return _folded(model, follow(model, _SOUGHT, to_run=True), remarks)
        except CannotFollowError as error:
            if _computes(model):
                remarks.add("", f"({type(model).__name__}) cannot be followed as a whole: {error}")
                remarks.unfollowed = remarks.unfollowed or remarks.said[-1]
    else:
        remarks.add("", "has hooks: its parts are followed one by one")
    result = _copied(model, {})
    _fold_parts(result, remarks)
    return result


def _fold_parts(result: nn.Module, remarks: Remarks) -> None:
    """Let the parts of `result` compute by graphs of their own; what is reached into them for stays."""
    prefix = remarks.prefix
    for name, part in result.named_children():
        if holds(part, _SOUGHT) and not isinstance(part.__dict__.get("forward"), fx.GraphModule):
            remarks.prefix = f"{prefix}{name}."
            try:
                if not hooked(part):
                    # Not as a submodule, which whoever iterates over a Sequential would find.
                    part.__dict__["forward"] = _folded(part, follow(part, _SOUGHT, to_run=True), remarks).eval()
                    continue
                remarks.add("", "has hooks: its parts are followed one by one")
            except CannotFollowError as error:
                if _computes(part):
                    remarks.add("", f"({type(part).__name__}) cannot be followed as a whole: {error}")
            _fold_parts(part, remarks)
    remarks.prefix = prefix


def graphs_of_parts(result: nn.Module) -> list[fx.GraphModule]:
    """The graphs by which parts of what `for_running` returned compute: they are no submodules."""
    own = (part.__dict__.get("forward") for part in result.modules())
    return [graph for graph in own if isinstance(graph, fx.GraphModule)]


def _computes(module: nn.Module) -> bool:
    """Whether it has a forward, which a ModuleList has not."""
    return type(module).forward is not nn.Module.forward


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A copy without torch.nn.utils.prune, whose products cannot be copied; its masks are applied for good."""
    for each in module.modules():
        for key in forms.pruned(each):
            product = getattr(each, key).detach()
            memo.setdefault(id(getattr(each, key)), product)
    result = copy.deepcopy(module, memo)
    for each in result.modules():
        for key in forms.pruned(each):
            prune.remove(each, key)
    return result


@dataclass(frozen=True)
class _Chain:
    """A layer's node, and the nodes after it that it can take in."""

    layer: fx.Node
    norm: fx.Node | None
    relu: fx.Node | None
    pool: fx.Node | None


def _chains(graph: fx.Graph, root: nn.Module, remarks: Remarks) -> Iterator[_Chain]:
    for node in graph.nodes:
        layer = module_of(node, root)
        if not isinstance(layer, Layer) or type(layer) not in LAYERS:
            continue
        norm = only_user(node)
        if norm is not None and not folds(layer, module_of(norm, root)):
            norm = None
        relu = only_user(norm or node)
        if relu is not None and not is_relu(relu, root):
            relu = None
        pool = only_user(relu) if relu is not None else None
        if pool is not None and not is_pool(pool, root):
            pool = None
        if pool is None and type(layer) not in RECTIFIED:
            relu = None
        nodes = [each for each in (node, norm, relu, pool) if each is not None]
        reasons = {each: _watched(module_of(each, root)) for each in nodes} if len(nodes) > 1 else {}
        watched = [each for each, reason in reasons.items() if reason]
        for each in watched:
            remarks.add(str(each.target), f"has {reasons[each]}: it is not folded")
        if node in watched or norm in watched:
            continue
        if relu in watched:
            relu = pool = None
        elif pool in watched:
            pool, relu = None, relu if type(layer) in RECTIFIED else None
        if norm is not None or relu is not None:
            yield _Chain(node, norm, relu, pool)


def _watched(module: nn.Module | None) -> str:
    """What a module has for which it is called as it is, "" if nothing. Hooks of torch.nn.utils.prune do not count."""
    if module is None:
        return ""
    if "forward" in vars(module):
        return "a forward of its own"
    hooks = list(module._forward_pre_hooks.values())
    only_pruned = bool(hooks) and all(isinstance(hook, prune.BasePruningMethod) for hook in hooks)
    others = (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "hooks" if (any(others) if only_pruned else hooked(module)) else ""


def _folded(root: nn.Module, graph: fx.Graph, remarks: Remarks) -> fx.GraphModule:
    """Copies of `root`'s modules, called as the graph says; those that take in another are copied for each call."""
    chains = {chain.layer: chain for chain in _chains(graph, root, remarks)}
    parts: dict[str, Any] = {}
    memo: dict[int, Any] = {}
    names = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            parts[str(node.target)] = copy.deepcopy(_attribute(root, str(node.target)), memo)
        elif node.op == "call_module" and node not in chains:
            module = root.get_submodule(str(node.target))
            if hooked(module) and holds(module, _SOUGHT):
                remarks.add(str(node.target), "has hooks: what is in it stays as it is")
            parts[str(node.target)] = _copied(module, memo)
    made: dict[tuple[Any, ...], str] = {}
    for node, chain in chains.items():
        name, norm = str(node.target), module_of(chain.norm, root) if chain.norm else None
        # A pool takes the ReLU in, at less than its cost in a layer's store.
        relu = chain.relu is not None and chain.pool is None
        key = (name, norm, relu)
        if key not in made:
            made[key] = _free(name, names) if name in parts else name
            parts[made[key]] = _folded_layer(root.get_submodule(name), norm, relu)
        node.target = made[key]
        if isinstance(norm, nn.BatchNorm1d):
            _insert(graph, node, _free(f"{name}_input", names), parts)
        if chain.pool is not None:
            pooled = _free(f"{name}_pool", names)
            parts[pooled] = ReLUMaxPool2d()
            with graph.inserting_after(chain.pool):
                chain.pool.replace_all_uses_with(after := graph.call_module(pooled))
            after.args = (node,)
        for taken_in in (chain.pool, chain.relu, chain.norm):
            if taken_in is not None:
                taken_in.replace_all_uses_with(node)
                graph.erase_node(taken_in)
    for name in [name for name in parts if not any(node.target == name for node in graph.nodes)]:
        del parts[name]
    return fx.GraphModule(parts, graph)


def _folded_layer(original: nn.Module, norm: nn.Module | None, relu: bool) -> nn.Module:
    layer = _copied(original, {})
    if norm is not None:
        fold(layer, norm)  # type: ignore[arg-type]
    if relu:
        layer.__class__ = RECTIFIED[type(layer)]
    return layer


def _insert(graph: fx.Graph, before: fx.Node, name: str, parts: dict[str, Any]) -> None:
    (taken,) = before.all_input_nodes
    parts[name] = VectorsOnly()
    with graph.inserting_before(before):
        before.replace_input_with(taken, graph.call_module(name, (taken,)))


def _free(name: str, names: set[str]) -> str:
    """A name like this that no module has."""
    while name in names:
        name += "_again"
    names.add(name)
    return name


def _attribute(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root
