"""A whole training step on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch

from bench.cases.layouts import LAYOUTS
from bench.cases.masks import network_masks
from bench.gpu.precision import set_precision
from bench.gpu.results import Results
from bench.timing.gpu import microseconds
from lth_sparse import models
from lth_sparse.nn import sparsify
from lth_sparse.nn.masks import apply
from lth_sparse.verification.training import training_step

STEP_SPARSITY = 0.98


def measure_step(results: Results, network: str, backends: Sequence[str], device: torch.device, batch: int) -> None:
    """A whole training step, captured in a CUDA graph: masked dense in both layouts, and sparse layers."""
    set_precision("tf32")
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    sides = {}
    for name, layout in product(("dense", *backends), LAYOUTS):
        model = models.build(models.Network(network, (3, 32, 32), 10), seed=0)
        masks = network_masks(model, STEP_SPARSITY)
        apply(model, masks)
        memory_format = LAYOUTS[layout]
        model = model.to(device).to(memory_format=memory_format)
        on_device = {layer: mask.to(device) for layer, mask in masks.items()}
        if name != "dense":
            model, on_device = sparsify(model, on_device, name), {}
        here = images.to(device).contiguous(memory_format=memory_format)
        sides[f"{name}, {layout}"] = training_step(model, here, labels.to(device), on_device)
    times = microseconds(sides, device)
    results.found["steps"].append({"network": network, "sparsity": STEP_SPARSITY, "microseconds": times})
    results.write()
