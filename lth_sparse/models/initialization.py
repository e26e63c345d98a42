"""Initial weights, which in a lottery are half of the ticket."""

from collections.abc import Callable

from torch import Tensor, nn


def gaussian_glorot(model: nn.Module) -> nn.Module:
    """Gaussian Glorot weights and zero biases, in place (Frankle and Carbin 2019, appendix A)."""
    return _initialized(model, nn.init.xavier_normal_)


def kaiming_normal(model: nn.Module) -> nn.Module:
    """Gaussian He weights, zero biases, in place (He et al. 2015; the default of open_lth)."""
    return _initialized(model, nn.init.kaiming_normal_)


def _initialized(model: nn.Module, fill: Callable[[Tensor], Tensor]) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
