"""Each layer by itself: on the input that it has in its network, its output and both gradients, errors and time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.backends import registry, winograd
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import OPERATIONS, Choices
from lth_sparse.backends.cpp import CppBackend
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.system.errors import because
from lth_sparse.system.memory_formats import MEMORY_FORMATS
from lth_sparse.system.seeding import generator
from lth_sparse.verification.judgement import TIMES_DENSE, Judged, Row, nothing_to_compare, relative, rounding
from lth_sparse.verification.speed import medians
from lth_sparse.verification.subject import Subject

FURTHEST_WALK = 3.0
"""Times sqrt(n) t eps, as `Yardstick` explains: of millions of sums."""
Sparse = SparseConv2d | SparseLinear
Dense = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Case:
    """A dense layer with its pruned weights 0, and what it is given: `x` in the layer's dtype, on its device."""

    name: str
    dense: Dense
    mask: Tensor
    x: Tensor
    grad_out: Tensor

    def laid_out(self, layout: str) -> Case:
        """The same in a memory format, weights and all."""
        memory_format = MEMORY_FORMATS[layout]

        def laid(tensor: Tensor) -> Tensor:
            return tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor

        dense = copy.deepcopy(self.dense).to(memory_format=memory_format)
        return Case(self.name, dense, self.mask, laid(self.x), laid(self.grad_out))

    @property
    def layouts(self) -> list[str]:
        """The memory formats that the layer can have."""
        return list(MEMORY_FORMATS) if self.x.dim() == 4 else ["contiguous"]


def cases(subject: Subject, images: Tensor, seed: int) -> tuple[list[Case], list[str]]:
    """One for each layer that `images` reach on their way through the network, and the names of those that they do not.

    A layer that is called several times has the input of its first call.
    """
    model = copy.deepcopy(subject.model)
    layers = {name: model.get_submodule(name) for name in subject.masks}
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], None]:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            if name not in inputs:
                x = given[0] if given else named["input"]
                inputs[name], outputs[name] = x.detach().clone(), output

        return hook

    hooks = [layer.register_forward_hook(note(name), with_kwargs=True) for name, layer in layers.items()]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    found = []
    for name, x in inputs.items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        grad_out = torch.randn(outputs[name].shape, generator=generator(seed, f"gradient of {name}")).to(x)
        found.append(Case(name, layer, subject.masks[name], x, grad_out))
    return found, [name for name in layers if name not in inputs]


class Yardstick:
    """The truth in float64 for one layer, how far dense PyTorch is from it, in each memory format, and rounding.

    A sum of n products whose typical size is t, accumulated one by one in float32, is a walk of n roundings of partial
    sums. With normal numbers it ends 0.15 sqrt(n) t eps away (root mean square, n from 64 to 4608), and the furthest of
    262,144 sums 1.4 to 2.1 sqrt(n) t eps: where partial sums stay large, so do their roundings. What is multiplied is
    rounded before, by tensor cores to TF32. Dense PyTorch adds in blocks, or may be right by luck.
    """

    def __init__(self, case: Case) -> None:
        exact = Case(case.name, copy.deepcopy(case.dense).double(), case.mask, case.x.double(), case.grad_out.double())
        self.truth = of_dense(exact)
        self._dense = {layout: of_dense(case.laid_out(layout)) for layout in case.layouts}
        # Of a sum of products with random signs, the typical size is the root of the sum of their squares.
        squared = Case(case.name, exact.dense, case.mask, exact.x.square(), exact.grad_out.square())
        with torch.no_grad():
            for parameter in squared.dense.parameters():
                parameter.square_()
        terms = Case(
            case.name, copy.deepcopy(exact.dense), case.mask, torch.ones_like(exact.x), torch.ones_like(exact.grad_out)
        )
        with torch.no_grad():
            for parameter in terms.dense.parameters():
                parameter.copy_(parameter != 0)
        counts = of_dense(terms)
        self._sizes = {name: value.sqrt() for name, value in of_dense(squared).items()}
        self._walks = {name: self._sizes[name] * count.sqrt() for name, count in counts.items()}

    def judge(self, operation: str, layout: str, ours: Tensor, eps: float, more: float = 0.0) -> Judged:
        """The error of `ours`; allowed is twice that of dense PyTorch in this layout, and what rounding explains.

        `eps`: the spacing of what is multiplied. `more`: what is allowed besides.
        """
        truth = self.truth[operation]
        if ours.shape != truth.shape:
            return Judged(float("nan"), 0.0)
        if not truth.numel():
            return Judged(0.0, 0.0)
        scale = float(truth.abs().max()) or 1.0
        own = relative(self._dense[layout][operation], truth)
        walk = FURTHEST_WALK * float(self._walks[operation].max()) * torch.finfo(torch.float32).eps
        rounded = 2 * eps * float(self._sizes[operation].max())
        return Judged(relative(ours, truth), TIMES_DENSE * own + (walk + rounded) / scale + more)


def of_dense(case: Case) -> dict[str, Tensor]:
    """Output, gradient of the input and of the live weights [nnz], by masked dense PyTorch in the case's dtype."""
    output, grad_input, grad_weight = _passes(case.dense, case.dense.weight, case)
    return {"forward": output, "grad_input": grad_input, "grad_weight": grad_weight[case.mask]}


def of_sparse(layer: Sparse, case: Case) -> dict[str, Tensor]:
    """The same by a sparse layer."""
    return dict(zip(OPERATIONS, _passes(layer, layer.values, case), strict=True))


def _passes(layer: nn.Module, weight: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    x = case.x.detach().requires_grad_()
    output = layer(x)
    grad_input, grad_weight = torch.autograd.grad(output, (x, weight), case.grad_out)
    return output.detach(), grad_input, grad_weight


def verified(case: Case, yardstick: Yardstick, subject: Subject, backend: str, not_timed: str) -> Row:
    """The row of one layer. `not_timed`: why the backend is not timed, "" if it is."""
    choices = Choices()
    judged: dict[str, Judged] = {}
    milliseconds: Mapping[str, float] = {}
    computed_by, notes, failed = "", [], ""
    try:
        with remembering(choices):
            laid_out = {layout: case.laid_out(layout) for layout in case.layouts}
            sparse = {layout: _sparse(own, backend) for layout, own in laid_out.items()}
            for layout, layer in sparse.items():
                eps = rounding(case.x.dtype, case.x.device, layer.spec)
                for operation, ours in of_sparse(layer, laid_out[layout]).items():
                    by_winograd = any("winograd" in name for name in _kernels(layer, operation, choices, case))
                    more = winograd.ERROR[winograd.setting()] if by_winograd else 0.0
                    verdict = yardstick.judge(operation, layout, ours, eps, more)
                    if operation not in judged or verdict.of_bound > judged[operation].of_bound:
                        judged[operation] = verdict
            computed_by = _computed_by(layer, choices, case)
            notes += nothing_to_compare(judged)
            if layer.computed_by != backend:
                notes.append(registry.get(backend).supports(layer.spec, layer.values.dtype, layer.values.device)[1])
            if not_timed:
                notes.append(f"not timed: {not_timed}")
            else:
                sides = {f"dense, {name}": _step(own.dense, own.dense.weight, own) for name, own in laid_out.items()}
                sides |= {f"ours, {name}": _step(sparse[name], sparse[name].values, laid_out[name]) for name in sparse}
                milliseconds, said = medians(sides, case.x.device)
                notes += said
    except Exception as error:
        # A backend that raises must not keep the others from being verified.
        failed = because(error)
    row = Row(subject.name, subject.sparsity, backend, case.name or "the layer", "layer", computed_by, judged)
    return replace(row, milliseconds=milliseconds, failed=failed, notes=tuple(notes))


def _step(layer: nn.Module, weight: Tensor, case: Case) -> Callable[[], object]:
    return lambda: _passes(layer, weight, case)


def _sparse(case: Case, backend: str) -> Sparse:
    dense = case.dense
    if isinstance(dense, nn.Conv2d):
        return SparseConv2d.from_dense(dense, case.mask, backend)
    return SparseLinear.from_dense(dense, case.mask, backend)


def _computed_by(layer: Sparse, choices: Choices, case: Case) -> str:
    """What computed all operations, or one for each; what auto chose in two memory formats may differ."""
    each = ["|".join(_kernels(layer, operation, choices, case)) for operation in OPERATIONS]
    return each[0] if len(set(each)) == 1 else ", ".join(each)


def _kernels(layer: Sparse, operation: str, choices: Choices, case: Case) -> list[str]:
    """The backends, or kernels of one, that did an operation of a layer."""
    chosen = dict.fromkeys(choice.backend for key, choice in choices.layers.items() if key.operation == operation)
    backend = registry.get(layer.computed_by)
    if isinstance(backend, CppBackend):
        return [backend.kernels(operation, layer.plan, case.x.dtype, case.x.shape).name]
    return list(chosen) or [layer.computed_by]
