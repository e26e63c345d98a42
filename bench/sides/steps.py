"""A training step of a network, masked dense or ours, and what it is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lth_sparse as lth
from bench.cases.layouts import LAYOUTS
from bench.cases.masks import network_masks
from bench.cases.networks import Network
from bench.timing.contest import Side
from lth_sparse import models
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.verification.training import training_step


def step(network: Network, backend: str, sparsity: float, layout: str, device: torch.device) -> Side:
    """The step, masked dense or by one of our backends, at `sparsity` in `layout`. Ours is fused, as runs are."""
    model, masks = pruned(network, sparsity, layout, device)
    if backend != "dense":
        model = lth.fuse(lth.sparsify(model, masks, backend))
    # Sparse layers need no masks, and nobody applies masks that prune nothing.
    applied = masks if backend == "dense" and sparsity else {}
    return {"step": training_step(model, *batch(network, layout, device), applied)}


def pruned(network: Network, sparsity: float, layout: str, device: torch.device) -> tuple[nn.Module, Masks]:
    """The network with random masks applied, and the masks, on `device`."""
    model = models.build(models.Network(network.name, network.input_shape[1:], network.classes), seed=0)
    masks = network_masks(model, sparsity)
    masking.apply(model, masks)
    on_device = {name: mask.to(device) for name, mask in masks.items()}
    return model.to(device).to(memory_format=LAYOUTS[layout]), on_device


def batch(network: Network, layout: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images [N, C, H, W] and labels [N]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(network.input_shape, generator=generator)
    labels = torch.randint(0, network.classes, network.input_shape[:1], generator=generator)
    return images.to(device).contiguous(memory_format=LAYOUTS[layout]), labels.to(device)


def usual_layout(network: Network) -> str:
    """The one that `python -m lth_sparse.run` trains the network in where it does not measure which is faster."""
    return models.faster_format(pruned(network, 0.0, "contiguous", torch.device("cpu"))[0])
