"""Initial weights, which in a lottery are half of the ticket."""

from torch import nn


def gaussian_glorot(model: nn.Module) -> nn.Module:
    """Gaussian Glorot weights and zero biases, in place (Frankle and Carbin 2019, appendix A)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def kaiming_normal(model: nn.Module) -> nn.Module:
    """Gaussian He weights, zero biases, in place (He et al. 2015; the default of open_lth)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
