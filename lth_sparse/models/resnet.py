"""ResNets for images of CIFAR's size (He et al. 2016): a 3x3 stem without pooling, projection shortcuts.

`resnet20` and `resnet32` are section 4.2's, of 6 n + 2 layers, with projections where open_lth has them and the paper
pads. `resnet18` and `resnet50` are table 1's, whose 7x7 stem of stride 2 and max-pool gave way to a 3x3 convolution, as
papers on pruning have them on CIFAR (Liu et al. 2021, arXiv:2106.10404, and its code, for resnet50). With the stem of
ImageNet they are `torchvision:resnet18` and `torchvision:resnet50`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.models.initialization import kaiming_normal
from lth_sparse.models.registry import register


def _shortcut(channels: int, filters: int, stride: int) -> nn.Module:
    if stride == 1 and channels == filters:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters))


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut; a 1x1 projection where the shape changes."""

    expansion = 1

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut = _shortcut(channels, filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, filters, H / stride, W / stride]."""
        out = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with BatchNorm around a shortcut, four times as wide outside; the 3x3 has the stride, as in
    torchvision."""

    expansion = 4

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv3 = nn.Conv2d(filters, 4 * filters, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * filters)
        self.shortcut = _shortcut(channels, 4 * filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 4 * filters, H / stride, W / stride]."""
        out = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        out = functional.relu(self.norm2(self.conv2(out)), inplace=True)
        return functional.relu(self.norm3(self.conv3(out)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A stage of blocks for each of `widths`, each but the first at half the size; then global average pooling."""

    def __init__(
        self,
        channels: int,
        classes: int,
        block: type[Block | Bottleneck],
        widths: Sequence[int],
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        made: list[nn.Module] = []
        before = widths[0]
        for stage, (filters, count) in enumerate(zip(widths, blocks, strict=True)):
            for position in range(count):
                made.append(block(before, filters, 2 if stage > 0 and position == 0 else 1))
                before = block.expansion * filters
        self.blocks = nn.Sequential(*made)
        self.output = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes]."""
        out = self.blocks(functional.relu(self.norm(self.conv(x)), inplace=True))
        return self.output(torch.mean(out, dim=(2, 3)))


@register("resnet20", minimum_size=4)
def resnet20(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """270,896 weights for CIFAR-10; the lottery papers also call it 'ResNet-18'."""
    return kaiming_normal(ResNet(input_shape[0], classes, Block, (16, 32, 64), (3, 3, 3)))


@register("resnet32", minimum_size=4)
def resnet32(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """464,432 weights for CIFAR-10. The 'ResNet-32' of GraSP and its followers is twice as wide."""
    return kaiming_normal(ResNet(input_shape[0], classes, Block, (16, 32, 64), (5, 5, 5)))


@register("resnet18", minimum_size=8)
def resnet18(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """11,164,352 weights for CIFAR-10. What the first lottery papers call 'ResNet-18' is `resnet20`."""
    return kaiming_normal(ResNet(input_shape[0], classes, Block, (64, 128, 256, 512), (2, 2, 2, 2)))


@register("resnet50", minimum_size=8)
def resnet50(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """23,467,712 weights for CIFAR-10."""
    return kaiming_normal(ResNet(input_shape[0], classes, Bottleneck, (64, 128, 256, 512), (3, 4, 6, 3)))
