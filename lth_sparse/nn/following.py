"""Following a network with torch.fx: which module is computed after which, as far as no number decides it."""

from __future__ import annotations

import operator
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lth_sparse.nn import clamps
from lth_sparse.nn.clamps import RELU, RELU6, Bounds
from lth_sparse.nn.fused_modules import FusedBatchNorm2d, FusedReLU
from lth_sparse.nn.unfinished import is_two_by_two
from lth_sparse.nn.watched import hooked

NORMS = (nn.BatchNorm2d, FusedBatchNorm2d)
RELUS = (nn.ReLU, FusedReLU)
ADDITIONS = (operator.add, operator.iadd, torch.add)
_TORCH = Path(torch.__file__).parent
_OURS = Path(__file__).parent.parent


class CannotFollowError(Exception):
    """A module's forward asks for numbers, or does what a graph has no form for. The message says why and where."""


def holds(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module of one of these classes, and no other, is inside `module`."""
    return any(type(each) in kinds for each in module.modules() if each is not module)


def follow(module: nn.Module, kinds: tuple[type[nn.Module], ...], *, to_run: bool = False) -> fx.Graph:
    """The graph of what `module` does. Modules that hold none of `kinds`, have hooks or are torch.nn's are steps of it.

    `to_run`: not only to look at, so that random numbers, which it would keep as they were drawn, may not be in it.
    Raises CannotFollowError.
    """
    if "forward" in vars(module):
        raise CannotFollowError("it has a forward of its own, beside its class's")
    try:
        with torch.random.fork_rng(devices=[]):
            drawn = torch.get_rng_state()
            graph = Tracer(kinds).trace(module)
            if not to_run or torch.equal(drawn, torch.get_rng_state()):
                return graph
    except Exception as error:  # Whatever a user's forward raises when it is given no tensors.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CannotFollowError(f"{reason}{_place(error)}") from error
    raise CannotFollowError("it draws random numbers, and would go on with the same ones")


class Tracer(fx.Tracer):
    """Follows modules in which one of `kinds` is to be found; all others are steps of the graph."""

    def __init__(self, kinds: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self.kinds = kinds

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is a step."""
        of_torch = super().is_leaf_module(m, module_qualified_name)
        return of_torch or not holds(m, self.kinds) or hooked(m) or isinstance(m, torch.jit.ScriptModule)


def module_of(node: fx.Node, root: nn.Module) -> nn.Module | None:
    """The module that a node of `root`'s graph calls, if it calls one."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def only_user(node: fx.Node) -> fx.Node | None:
    """The node that takes the output of this one, where there is one such."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def bounds_of(node: fx.Node, root: nn.Module) -> Bounds | None:
    """What a node of `root`'s graph clamps its input to, as ReLU and ReLU6 do; None where it is another step."""
    if node.op == "call_function":
        clamp = clamps.of_call(node.target, *node.args[1:], **node.kwargs)
        return clamp[0] if clamp else None
    if node.op == "call_method":
        return RELU if node.target in ("relu", "relu_") else None
    module = module_of(node, root)
    if type(module) is nn.Hardtanh:
        return float(module.min_val), float(module.max_val)
    return RELU if type(module) in RELUS else RELU6 if type(module) is nn.ReLU6 else None


def is_relu(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node of `root`'s graph is ReLU, in any of PyTorch's ways to write it."""
    return bounds_of(node, root) == RELU


def is_pool(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node of `root`'s graph is the 2x2 max-pool of the fused operators."""
    module = module_of(node, root)
    if type(module) is nn.MaxPool2d:
        own = (module.kernel_size, module.stride, module.padding, module.dilation)
        return is_two_by_two(*own, module.ceil_mode, module.return_indices)
    if node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d):
        arguments: tuple[Any, ...] = node.args[1:]
        return is_two_by_two(*arguments, **node.kwargs)  # type: ignore[arg-type]
    return False


def _place(error: Exception) -> str:
    """The last line of a user's program that led to it."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not {_TORCH, _OURS} & set(path.parents) and path.suffix == ".py":
            return f" ({path.name}, line {frame.lineno}, in {frame.name})"
    return ""
