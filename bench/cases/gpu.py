"""What is modelled and measured on a GPU, and what each figure has to reach on an H200."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases.goals import Goal
from lth_sparse.plans.layer_spec import LayerSpec

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
BACKENDS = ("triton", "cuda")
TICKET_GOALS = {
    ("triton", "tf32"): {0.95: Goal(1.0, 1.5), 0.98: Goal(1.8, 3.0), 0.99: Goal(2.5, 5.0)},
    ("cuda", "tf32"): {0.95: Goal(1.5, 2.0), 0.98: Goal(2.5, 4.0), 0.99: Goal(3.5, 7.0)},
    ("cuda", "bfloat16"): {0.95: Goal(1.2, 1.7), 0.98: Goal(2.0, 3.0), 0.99: Goal(3.0, 5.0)},
    ("cuda", "float32"): {0.9: Goal(2.0, 4.0)},
}
"""(backend, precision) -> sparsity -> goal. Forward and backward pass of the 3x3 layers with 64 to 256 channels, masks
of real tickets, against the better layout of dense PyTorch in the same precision."""
STEP_GOALS = {"cuda": Goal(1.5, 2.5)}
"""A graphed training step of vgg16 at 98 %, against masked dense, graphed too."""
NEVER_SLOWER = Goal(0.98, 1.0)
"""Of the auto backend, at any sparsity."""


@dataclass(frozen=True)
class GpuLayer:
    """A layer and what it is given. `ticket_layer`: the layer of conv6 (bench/cases/tickets.py) that has its shape."""

    name: str
    spec: LayerSpec
    input_shape: tuple[int, ...]
    ticket_layer: str | None = None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, C_out, H_out, W_out], or [M, out] of a linear layer."""
        size = self.spec.output_size(*self.input_shape[2:]) if self.spec.kind == "conv2d" else ()
        return (self.input_shape[0], self.spec.out_channels, *size)


def _conv(channels: int) -> LayerSpec:
    return LayerSpec("conv2d", channels, channels, (3, 3), padding=(1, 1))


LAYERS = [
    GpuLayer("c64", _conv(64), (128, 64, 32, 32), "conv1b"),
    GpuLayer("c128", _conv(128), (128, 128, 16, 16), "conv2b"),
    GpuLayer("c256", _conv(256), (128, 256, 8, 8), "conv3b"),
    GpuLayer("c512", _conv(512), (128, 512, 4, 4)),
    GpuLayer("linear", LayerSpec("linear", 4096, 256), (128, 4096)),
]
REHEARSED = [GpuLayer("tiny", _conv(16), (2, 16, 4, 4)), GpuLayer("tiny linear", LayerSpec("linear", 24, 16), (4, 24))]
"""What a rehearsal without a GPU runs in Triton's interpreter."""
