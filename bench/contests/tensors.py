"""What all sides of a layer are given, and what they have to make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases.layouts import LAYOUTS
from lth_sparse import reference
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.verification.judgement import relative

PASSES = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class Tensors:
    """What every side of one layer is given, and `chances`: a weight is live at sparsities up to its own."""

    x: Tensor
    weight: Tensor
    grad_out: Tensor
    chances: Tensor

    @classmethod
    def random(cls, spec: LayerSpec, input_shape: tuple[int, ...], device: torch.device) -> Tensors:
        """The same numbers on every device."""
        generator = torch.Generator().manual_seed(0)
        size = spec.output_size(*input_shape[2:]) if spec.kind == "conv2d" else ()
        x = torch.randn(input_shape, generator=generator)
        weight = torch.randn(spec.weight_shape, generator=generator) / x[0].numel() ** 0.5
        grad_out = torch.randn((input_shape[0], spec.out_channels, *size), generator=generator)
        chances = torch.rand(spec.weight_shape, generator=generator)
        return cls(*(tensor.to(device) for tensor in (x, weight, grad_out, chances)))

    def laid_out(self, layout: str) -> Tensors:
        """The same in `layout`."""
        x, weight, grad_out = (
            tensor.contiguous(memory_format=LAYOUTS[layout]) for tensor in (self.x, self.weight, self.grad_out)
        )
        return Tensors(x, weight, grad_out, self.chances)

    def masked(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first three; what is pruned of the weight is 0."""
        return self.x, self.weight.clone().masked_fill_(~mask, 0), self.grad_out

    def exact(self, spec: LayerSpec, mask: Tensor) -> dict[str, Tensor]:
        """The result of each pass in float64, by the specification; the gradient of live weights alone."""
        x, weight, grad_out = (tensor.double() for tensor in (self.x, self.weight, self.grad_out))
        values = weight[mask]
        return {
            "forward": reference.forward(x, values, None, mask, spec),
            "grad_input": reference.grad_input(grad_out, values, mask, spec, tuple(x.shape)),
            "grad_weight": reference.grad_weight(x, grad_out, mask, spec),
        }


def errors(
    who: str, results: Mapping[str, Tensor], exact: Mapping[str, Tensor], mask: Tensor, bound: float
) -> dict[str, float]:
    """Each result's largest difference from float64 over the largest entry. Raises AssertionError from `bound` on.

    A gradient of the weight may be that of all weights, or of live ones.
    """
    found = {}
    for name, result in results.items():
        dense = name == "grad_weight" and result.shape == mask.shape
        found[name] = relative(result[mask] if dense else result, exact[name])
        assert found[name] < bound, f"{who}, {name}: relative error {found[name]:.2g} against float64"
    return found
