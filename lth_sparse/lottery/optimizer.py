"""The optimizer of a training: PyTorch's, in the variant that takes the least time.

Weight decay is what each of them calls so: of sgd and adam a penalty, added to the gradient; of adamw decoupled, taken
from the weight itself (Loshchilov and Hutter 2019, arXiv:1711.05101).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lth_sparse.settings.config import TrainingConfig

ADAMS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def optimizer_of(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """On the CPU, with a learning rate that is a number. Adam, of either kind, is always faster fused."""
    if config.optimizer in ADAMS:
        return ADAMS[config.optimizer](
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.SGD(
        model.parameters(),
        config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=sgd_is_faster_fused(model.parameters()),
    )


def recordable_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """The same with a learning rate that is a tensor, float32 [] on `device`, and nothing that the host has to read.

    Of PyTorch's variants the fused ones: SGD has no other that does not read the rate, and Adam's is one kernel.
    """
    rate = torch.tensor(config.learning_rate, dtype=torch.float32, device=device)
    if config.optimizer in ADAMS:
        return ADAMS[config.optimizer](
            model.parameters(), rate, weight_decay=config.weight_decay, fused=True, capturable=True
        )
    return torch.optim.SGD(
        model.parameters(),
        rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def sgd_is_faster_fused(parameters: Iterable[Tensor]) -> bool:
    """Whether PyTorch's fused SGD is the faster one for `parameters` on the CPU.

    It takes 0.6 times as long as the plain one where tensors are contiguous, as live weights are, and 1.2 times as
    long on weights in channels_last: so it depends on which of them most numbers are in.
    """
    parameters = list(parameters)
    return 2 * sum(each.numel() for each in parameters if each.is_contiguous()) >= sum(
        each.numel() for each in parameters
    )
