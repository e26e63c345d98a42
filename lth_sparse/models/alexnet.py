"""`network`: the AlexNet for CIFAR of the coursework that this project started from."""

from collections import OrderedDict

from torch import nn

from lth_sparse.models.registry import register


@register("network", minimum_size=16)
def network(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Five 3x3 convolutions, three fully connected layers, neither BatchNorm nor dropout; PyTorch's initial weights.

    23.3 million weights for CIFAR-10, nine tenths of them in the fully connected layers; 62.7 MMAC an image.
    """
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for position, (filters, stride, pool) in enumerate(
        [(64, 2, True), (192, 1, True), (384, 1, False), (256, 1, False), (256, 1, True)], start=1
    ):
        layers[f"conv{position}"] = nn.Conv2d(channels, filters, 3, stride=stride, padding=1)
        layers[f"relu{position}"] = nn.ReLU(inplace=True)
        height, width, channels = -(-height // stride), -(-width // stride), filters
        if pool:
            layers[f"pool{position}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * height * width, 4096)
    layers["fc_relu1"] = nn.ReLU(inplace=True)
    layers["fc2"] = nn.Linear(4096, 4096)
    layers["fc_relu2"] = nn.ReLU(inplace=True)
    layers["output"] = nn.Linear(4096, classes)
    return nn.Sequential(layers)
