"""Wide ResNets for CIFAR (Zagoruyko and Komodakis 2016, arXiv:1605.07146): BatchNorm and ReLU before convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.models.initialization import kaiming_normal
from lth_sparse.models.registry import register


class Block(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, around a shortcut; where the shape changes a 1x1 projection, which
    begins behind the first ReLU."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if channels != filters:
            self.shortcut = nn.Conv2d(channels, filters, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, filters, H / stride, W / stride]."""
        normed = functional.relu(self.norm1(x), inplace=True)
        skipped = x if self.shortcut is None else self.shortcut(normed)
        return self.conv2(functional.relu(self.norm2(self.conv1(normed)), inplace=True)) + skipped


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, `width` times as wide as 16, 32 and 64, then global average pooling."""

    def __init__(self, channels: int, classes: int, depth: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        before = 16
        for filters in (16 * width, 32 * width, 64 * width):
            for position in range((depth - 4) // 6):
                blocks.append(Block(before, filters, 2 if filters > 16 * width and position == 0 else 1))
                before = filters
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.output = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes]."""
        out = functional.relu(self.norm(self.blocks(self.conv(x))), inplace=True)
        return self.output(torch.mean(out, dim=(2, 3)))


@register("wrn-22-1", minimum_size=4)
def wrn_22_1(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """270,896 weights for CIFAR-10: wrn-22-2 at half its width, for tickets that go from one width to another."""
    return kaiming_normal(WideResNet(input_shape[0], classes, depth=22, width=1))


@register("wrn-22-2", minimum_size=4)
def wrn_22_2(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """1,076,912 weights for CIFAR-10; RigL's network there (Evci et al. 2020), without the dropout of its code."""
    return kaiming_normal(WideResNet(input_shape[0], classes, depth=22, width=2))
