"""The whole network: output, gradients, a training, and the time of a step, against masked dense PyTorch.

Rounding is amplified on the way through a network, and at the corner of a ReLU or between two inputs of a pooling the
last bit decides which way a gradient takes. So the yardstick is not dense PyTorch's own error alone: it is the largest
of that and of what becomes of the network when every weight moves by as many roundings as a sum of some hundred
products errs by. Such an accident turns one entry over and leaves the rest, so errors are norms here.

Winograd's algorithm errs by more, and tells apart what is equal in PyTorch, such as pixels that no live weight sees,
among which a pooling then chooses. A backend that may use it has a yardstick of its own, whose convolutions err as it
may.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lth_sparse.backends import registry, winograd
from lth_sparse.backends.auto import candidates
from lth_sparse.backends.choices import OPERATIONS
from lth_sparse.backends.cpp_winograd import WinogradKernels
from lth_sparse.nn import SparseConv2d, SparseLinear, sparsify
from lth_sparse.nn.masks import weight_name
from lth_sparse.system.errors import because
from lth_sparse.system.memory_formats import MEMORY_FORMATS
from lth_sparse.system.seeding import generator
from lth_sparse.verification.judgement import (
    TIMES_DENSE,
    Judged,
    Row,
    nothing_to_compare,
    relative_norm,
    rounding,
)
from lth_sparse.verification.speed import medians
from lth_sparse.verification.subject import Subject
from lth_sparse.verification.training import loss_of, losses, targets_for, training_step

MOVED_BY = 16
"""Roundings to float32, in which sums are accumulated, of every weight; or two of what is multiplied, if more."""
MOVED = 3
"""Networks with other signs of these roundings."""
BLURRED = 5
"""As many where convolutions err too: which corners are turned over is more of a chance."""
TIMES_GROWTH = 4.0
"""Of a training's yardstick, which is a maximum over few runs."""
SHOWS_LITTLE = 0.1
"""A bound above this says little about the backend."""
Found = dict[str, dict[str, Tensor]]
"""Operation -> name of what it is the gradient of, or "" -> tensor."""


@dataclass(frozen=True)
class Yardstick:
    """`errors`: the largest that dense PyTorch, or its like, has, by operation. `growth`: how far the losses of such
    trainings are apart by each step, float64 [steps]."""

    errors: Mapping[str, float]
    growth: Tensor


class Baseline:
    """Masked dense PyTorch on one batch: the truth in float64, the yardsticks, and the losses of a training."""

    def __init__(self, subject: Subject, images: Tensor, steps: int, seed: int) -> None:
        self.subject, self.images, self.steps, self.seed = subject, images, steps, seed
        with torch.no_grad():
            self.targets = targets_for(copy.deepcopy(subject.model)(images), seed)
        specs = [
            layer.spec
            for layer in sparsify(copy.deepcopy(subject.model), subject.masks, "dense").modules()
            if isinstance(layer, SparseConv2d | SparseLinear)
        ]
        self._eps = max(rounding(images.dtype, images.device, spec) for spec in specs)
        by_winograd = any(WinogradKernels().supports(spec, images.dtype, images.device)[0] for spec in specs)
        self._of_winograd = winograd.ERROR[winograd.setting()] if by_winograd else 0.0
        self._double = copy.deepcopy(subject.model).double()
        self.truth = self.passes(copy.deepcopy(self._double), images.double())
        self.losses = self.trained(copy.deepcopy(subject.model), images) if steps else torch.zeros(0)
        self._yardsticks: dict[float, Yardstick] = {}

    def yardstick(self, backend: str) -> Yardstick:
        """That of `backend`."""
        kernels = candidates() if backend == "auto" else [backend, *registry.kernels(backend)]
        error = self._of_winograd if WinogradKernels.name in kernels else 0.0
        if error not in self._yardsticks:
            self._yardsticks[error] = self._measured(error)
        return self._yardsticks[error]

    def _measured(self, error: float) -> Yardstick:
        """Where a convolution may err by `error` of its largest output, beside rounding."""
        moved = [self._moved(number, error) for number in range(BLURRED if error else MOVED)]
        # max() of Python would lose a NaN.
        errors = [self.errors(self.passes(copy.deepcopy(other), self.images)) for other in (self.subject.model, *moved)]
        largest = {name: float(torch.tensor([each[name] for each in errors]).max()) for name in OPERATIONS}
        if not self.steps:
            return Yardstick(largest, self.losses)
        runs = [self.trained(copy.deepcopy(self._double), self.images.double())]
        runs += [self.trained(other, self.images) for other in moved]
        growth = torch.stack([(run - self.losses).abs() for run in runs])
        return Yardstick(largest, growth.amax(0).cummax(0).values)

    def passes(self, model: nn.Module, images: Tensor) -> Found:
        """Output of `model`, and the gradients of the loss by the images and by each parameter."""
        torch.manual_seed(self.seed)
        images = images.detach().requires_grad_()
        output = model(images)
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        gradients = torch.autograd.grad(
            loss_of(output, self.targets), [images, *named.values()], allow_unused=True, materialize_grads=True
        )
        by_name = dict(zip(named, gradients[1:], strict=True))
        for layer, mask in self.subject.masks.items():
            name = weight_name(layer)
            values = f"{layer}.values" if layer else "values"
            if values in by_name:
                by_name[name] = by_name.pop(values)
            elif name in by_name:
                by_name[name] = by_name[name][mask]
        return {"forward": {"": output.detach()}, "grad_input": {"": gradients[0]}, "grad_weight": by_name}

    def errors(self, found: Found) -> dict[str, float]:
        """Of each operation the norm of the error over that of the truth; NaN when something is not a number."""
        return {
            operation: relative_norm(_flat(found[operation], truth), _flat(truth, truth))
            for operation, truth in self.truth.items()
        }

    def trained(self, model: nn.Module, images: Tensor) -> Tensor:
        """The losses of a training of `model`, float64 [steps]."""
        torch.manual_seed(self.seed)
        return losses(training_step(model, images, self.targets, self.subject.masks), self.steps)

    def judge(self, found: Found, backend: str) -> dict[str, Judged]:
        """What `backend` found: twice the yardstick, and two roundings."""
        yardstick = self.yardstick(backend).errors
        return {
            operation: Judged(error, TIMES_DENSE * yardstick[operation] + 2 * self._eps)
            for operation, error in self.errors(found).items()
        }

    def judge_training(self, ours: Tensor, backend: str) -> Judged:
        """The step whose loss is nearest to its bound, or furthest beyond it, relative to dense PyTorch's loss."""
        scale = self.losses.abs().clamp_min(torch.finfo(torch.float64).tiny)
        # What is read is rounded to float32 at least.
        allowed = TIMES_GROWTH * self.yardstick(backend).growth + torch.finfo(torch.float32).eps * scale
        steps = [
            Judged(float(error), float(bound))
            for error, bound in zip((ours - self.losses).abs() / scale, allowed / scale, strict=True)
        ]
        return max(steps, key=lambda step: step.of_bound)

    def _moved(self, number: int, error: float) -> nn.Module:
        draws = generator(self.seed, f"moved {number}")
        distance = max(MOVED_BY * torch.finfo(torch.float32).eps, 2 * self._eps, 2 * error)
        moved = copy.deepcopy(self.subject.model)
        with torch.no_grad():
            for weight in moved.parameters():
                signs = torch.randint(0, 2, weight.shape, generator=draws).to(weight.device) * 2 - 1
                weight.mul_(1 + distance * signs)
        if error:

            def blurred(_: nn.Module, given: object, output: Tensor) -> Tensor:
                noise = torch.randint(0, 2, output.shape, generator=draws).to(output) * 2 - 1
                return output + error / 2 * output.detach().abs().max() * noise

            for layer in moved.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.register_forward_hook(blurred)
        return moved


def _flat(found: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Tensor:
    """All entries, in the order of the names of `like`."""
    return torch.cat([found[name].flatten() for name in like])


def verified(baseline: Baseline, backend: str, not_timed: str) -> list[Row]:
    """The rows of the network and of its training. `not_timed`: why the backend is not timed, "" if it is."""
    rows = [_passes_verified(baseline, backend, not_timed)]
    if baseline.steps:
        rows.append(_training_verified(baseline, backend))
    return rows


def _passes_verified(baseline: Baseline, backend: str, not_timed: str) -> Row:
    subject = baseline.subject
    row = Row(subject.name, subject.sparsity, backend, "whole network", "network")
    try:
        sparse = sparsify(copy.deepcopy(subject.model), subject.masks, backend)
        judged = baseline.judge(baseline.passes(sparse, baseline.images), backend)
        milliseconds: dict[str, float] = {}
        notes = [f"not timed: {not_timed}"]
        if not not_timed:
            milliseconds, notes = medians(_sides(baseline, backend), baseline.images.device)
    except Exception as error:
        return replace(row, failed=because(error))
    return replace(
        row, computed_by=_computed_by(sparse), judged=judged, milliseconds=milliseconds,
        notes=(*notes, *_little(judged), *nothing_to_compare(judged)),
    )  # fmt: skip


def _training_verified(baseline: Baseline, backend: str) -> Row:
    subject = baseline.subject
    row = Row(subject.name, subject.sparsity, backend, f"training, {baseline.steps} steps", "training")
    try:
        sparse = sparsify(copy.deepcopy(subject.model), subject.masks, backend)
        judged = {"loss": baseline.judge_training(baseline.trained(sparse, baseline.images), backend)}
    except Exception as error:
        return replace(row, failed=because(error))
    return replace(
        row, computed_by=_computed_by(sparse), judged=judged, notes=(*_little(judged), *nothing_to_compare(judged))
    )


def _little(judged: Mapping[str, Judged]) -> tuple[str, ...]:
    names = [name for name, each in judged.items() if each.bound > SHOWS_LITTLE]
    return (f"{', '.join(names)}: rounding alone does so much here that the bound shows little",) if names else ()


def _computed_by(model: nn.Module) -> str:
    """The backends of its sparse layers."""
    layers = [module for module in model.modules() if isinstance(module, SparseConv2d | SparseLinear)]
    return "|".join(dict.fromkeys(layer.computed_by for layer in layers))


def _sides(baseline: Baseline, backend: str) -> dict[str, Callable[[], object]]:
    """A whole training step of dense PyTorch, which masks its weights, and of ours, in each memory format."""
    found: dict[str, Callable[[], object]] = {}
    subject = baseline.subject
    for layout in MEMORY_FORMATS if baseline.images.dim() == 4 else ["contiguous"]:
        images = baseline.images.contiguous(memory_format=MEMORY_FORMATS[layout])
        for side in ("dense", "ours"):
            model = copy.deepcopy(subject.model).to(memory_format=MEMORY_FORMATS[layout])
            if side == "ours":
                model = sparsify(model, subject.masks, backend)
            masks = subject.masks if subject.sparsity else {}  # Nobody applies masks that prune nothing.
            found[f"{side}, {layout}"] = training_step(model, images, baseline.targets, masks)
    return found
