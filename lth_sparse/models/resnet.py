"""ResNet-20 for CIFAR (He et al. 2016, section 4.2), with projection shortcuts as in open_lth."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.models.initialization import kaiming_normal
from lth_sparse.models.registry import register


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut; a 1x1 projection where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, filters, H / stride, W / stride]."""
        out = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet20(nn.Module):
    """Three stages of three blocks, of 16, 32 and 64 filters, then global average pooling."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        filters_before = 16
        for filters in (16, 32, 64):
            for position in range(3):
                stride = 2 if filters != 16 and position == 0 else 1
                blocks.append(Block(filters_before, filters, stride))
                filters_before = filters
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes]."""
        out = self.blocks(functional.relu(self.norm(self.conv(x)), inplace=True))
        return self.output(torch.mean(out, dim=(2, 3)))


@register("resnet20", minimum_size=4)
def resnet20(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """270,896 weights for CIFAR-10; the lottery papers also call it 'ResNet-18'."""
    return kaiming_normal(ResNet20(input_shape[0], classes))
