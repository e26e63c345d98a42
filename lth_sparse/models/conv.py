"""Conv-2, Conv-4 and Conv-6: VGG scaled down for CIFAR-10 (Frankle and Carbin 2019, figure 2), and a smaller one."""

from collections import OrderedDict
from string import ascii_lowercase

from torch import nn

from lth_sparse.models.initialization import gaussian_glorot
from lth_sparse.models.registry import register


def _conv_network(
    input_shape: tuple[int, int, int],
    classes: int,
    blocks: tuple[tuple[int, ...], ...],
    hidden: tuple[int, ...],
) -> nn.Module:
    """For each of `blocks` 3x3 convolutions of these widths and a 2x2 max-pool; then fully connected layers."""
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, widths in enumerate(blocks, start=1):
        for position, filters in zip(ascii_lowercase, widths, strict=False):
            layers[f"conv{block}{position}"] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"relu{block}{position}"] = nn.ReLU(inplace=True)
            channels = filters
        layers[f"pool{block}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    features = channels * height * width
    for number, neurons in enumerate(hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(features, neurons)
        layers[f"fc_relu{number}"] = nn.ReLU(inplace=True)
        features = neurons
    layers["output"] = nn.Linear(features, classes)
    return gaussian_glorot(nn.Sequential(layers))


@register("conv2", minimum_size=2)
def conv2(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """4,300,992 weights for CIFAR-10."""
    return _conv_network(input_shape, classes, ((64, 64),), (256, 256))


@register("conv4", minimum_size=4)
def conv4(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """2,425,024 weights for CIFAR-10."""
    return _conv_network(input_shape, classes, ((64, 64), (128, 128)), (256, 256))


@register("conv6", minimum_size=8)
def conv6(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """2,261,184 weights for CIFAR-10."""
    return _conv_network(input_shape, classes, ((64, 64), (128, 128), (256, 256)), (256, 256))


@register("small", minimum_size=8)
def small(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """155,824 weights for CIFAR-10: what the quick preset trains within minutes on two cores."""
    return _conv_network(input_shape, classes, ((16,), (32,), (64,)), (128,))
