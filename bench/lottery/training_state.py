"""What training has to hold from step to step, counted on the very tensors, and its peak on a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lth_sparse.lottery.training import Training
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.nn.masks import Masks


def held_bytes(training: Training, masks: Masks) -> int:
    """Parameters, gradients, the optimizer's state, buffers, and masks or plans, after a step; no activations."""
    tensors = [*training.model.parameters(), *training.model.buffers()]
    tensors += [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]
    tensors += [value for state in training.optimizer.state.values() for value in state.values()]
    sparse = [layer for layer in training.model.modules() if isinstance(layer, SparseConv2d | SparseLinear)]
    plans = [tensor for layer in sparse for tensor in layer.plan.tensors()]
    return _bytes([*tensors, *(plans if sparse else masks.values())])


def _bytes(tensors: Iterable[object]) -> int:
    """Of the storages, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def measured(make: Callable[[], Training], masks: Masks, device: torch.device) -> dict[str, int]:
    """{"held_bytes"} of what `make` gives after a step, and on a GPU {"peak_bytes"}, from before it was made."""
    if device.type != "cuda":
        training = make()
        training.step()
        return {"held_bytes": held_bytes(training, masks)}
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    training = make()
    training.warm_up()
    training.step()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    return {"held_bytes": held_bytes(training, masks), "peak_bytes": peak}
