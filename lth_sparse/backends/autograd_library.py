"""The library of csrc/autograd: the layers' node of autograd's graph in C++.

It needs PyTorch's full ABI, which changes from version to version: by another PyTorch than the one that it was built
for it is not even opened.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators

_NAME = "lth_sparse._autograd"
_BUILD = "run 'pip install --no-build-isolation -e .'"


def load(name: str = _NAME) -> tuple[Any, str]:
    """The module, or why it is not used."""
    if cpu_operators.UNUSABLE:
        return None, cpu_operators.UNUSABLE
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return None, f"it is not built for this Python: {_BUILD}"
    built_for = torch_of(Path(found.origin))
    if built_for != torch.__version__:
        return None, f"it was built for torch {built_for or 'unknown'}, and this is {torch.__version__}: {_BUILD}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return None, str(error).splitlines()[0]
    try:
        connected = module.connect()
    except TypeError:  # One of before wants the address.
        connected = False
    if not connected:
        return None, f"it was built of other sources than the kernels: {_BUILD}"
    return module, ""


def torch_of(path: Path) -> str:
    """The PyTorch that the library was built for, read without loading it; "" when it does not say."""
    found = re.search(rb"lth_sparse: built for torch ([\w.+]+)", path.read_bytes())
    return found[1].decode() if found else ""


def forget() -> None:
    """Have each plan ask anew which kernels it is to call: what that depends on has changed."""
    if _module is not None:
        _module.forget()


def _nothing(*_: Any) -> None:
    """What there is to call without the library."""


_module, UNUSABLE = load()
"""UNUSABLE: why the library is not used here; "" when it is."""

plan: Callable[..., Any] = _module.plan if _module else _nothing
"""(tensors of a SparsePlan, the layer as 11 integers, whether it is linear, choose, gradients): what `call` takes
first.

choose (shape of x, its dtype as csrc/cpu/element.h numbers it, whether channels_last, whether x needs a gradient,
whether values do): the kernels of each pass, as csrc/autograd/layer_plan.h numbers them, or None when they are not
known yet. gradients: as `lth_sparse.backends.autograd_node` says.
"""

call: Callable[..., Tensor | None] = _module.call if _module else _nothing
"""(plan, x, values, bias or None, mask, its version when it was indexed, relu): the layer's output, in autograd's
graph.

None when the call is not plain, and has to go through Python: a mode, a transform of torch.func, autocast, a tracer or
forward-mode AD is active, a tensor is of a subclass or not dense memory, the mask was written to, the kernels are not
known yet or not those of C++, or the input does not fit, which Python says in a sentence.
"""

forward: Callable[[Any, Tensor, Tensor, Tensor | None], Tensor | None] = _module.forward if _module else _nothing
"""(plan, x, values, bias or None): the output, below autograd, of x [N, C] or [N, C, H, W].

None when something does not fit, or the kernels are not known yet or not those of C++.
"""

grad_input: Callable[[Any, Tensor, Tensor, Sequence[int]], Tensor | None] = _module.grad_input if _module else _nothing
"""(plan, grad_out, values, shape of x): the gradient of x, or None as above."""

grad_weight: Callable[[Any, Tensor, Tensor], Tensor | None] = _module.grad_weight if _module else _nothing
"""(plan, x, grad_out): the gradient of the values, or None as above."""
