"""VGG-16 and VGG-19 for CIFAR with BatchNorm and one fully connected layer (Simonyan and Zisserman 2015; open_lth)."""

from collections import OrderedDict

from torch import nn

from lth_sparse.models.initialization import kaiming_normal
from lth_sparse.models.registry import register


def _vgg(input_shape: tuple[int, int, int], classes: int, repeats: tuple[int, ...]) -> nn.Module:
    """Stages of 64, 128, 256, 512 and 512 filters, `repeats` convolutions each, with a max-pool between stages."""
    channels = input_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, (filters, convolutions) in enumerate(zip((64, 128, 256, 512, 512), repeats, strict=True), start=1):
        if stage > 1:
            layers[f"pool{stage - 1}"] = nn.MaxPool2d(2)
        for position in range(1, convolutions + 1):
            layers[f"conv{stage}_{position}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            layers[f"norm{stage}_{position}"] = nn.BatchNorm2d(filters)
            layers[f"relu{stage}_{position}"] = nn.ReLU(inplace=True)
            channels = filters
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return kaiming_normal(nn.Sequential(layers))


@register("vgg16", minimum_size=16)
def vgg16(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """14,715,584 weights for CIFAR-10."""
    return _vgg(input_shape, classes, (2, 2, 3, 3, 3))


@register("vgg19", minimum_size=16)
def vgg19(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """20,024,000 weights for CIFAR-10."""
    return _vgg(input_shape, classes, (2, 2, 4, 4, 4))
