"""The networks of `pytest bench/ -m inference_peers`, which other engines run, too, and what is to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torchvision
from torch import Tensor, nn

from bench.cases.goals import Goal
from bench.cases.transformer import HIDDEN, WIDTH
from lth_sparse.nn.masks import Masks, prunable

SIZE = 224
"""Pixels, as torchvision's networks were made for."""
FEED_FORWARD = "ViT-B/16 feed-forward"
TOKENS = 197
CLASSES = 1000
UNEVENNESS = 0.5
"""Of the logarithm of how large the weights of a channel are."""


@dataclass(frozen=True)
class EngineCase:
    """A network of torchvision, or the feed-forward part of one block of its ViT-B/16, `sparsity` of its weights pruned
    in every layer but depthwise ones, the first and the last.

    `even`: each weight is kept with the same chance; otherwise some channels keep more, as magnitude leaves them.
    `goals`: of an engine's time over ours, by its name.
    """

    network: str
    batch: int
    sparsity: float
    even: bool = True
    goals: Mapping[str, Goal] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [self.network, f"batch {self.batch}", f"{self.sparsity:.0%}", *([] if self.even else ["uneven"])]
        return "-".join(words).replace(" ", "-")

    def inputs(self) -> Tensor:
        """Images, or the tokens of as many images."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, TOKENS, WIDTH) if self.network == FEED_FORWARD else (self.batch, 3, SIZE, SIZE)
        return torch.randn(shape, generator=generator)

    def pruned(self) -> tuple[nn.Module, Masks]:
        """In eval mode, its pruned weights 0; with its masks."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.network == FEED_FORWARD:
                model: nn.Module = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
            else:
                model = getattr(torchvision.models, self.network)(weights=None)
        generator = torch.Generator().manual_seed(0)
        masks = {}
        for name, weight in prunable(model).items():
            if _is_pruned(model.get_submodule(name), weight):
                masks[name] = self._mask(weight.shape, generator)
                weight.data.mul_(masks[name])
        return model.eval(), masks

    def _mask(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        if self.even:
            return torch.rand(shape, generator=generator) >= self.sparsity
        scores = torch.randn(shape, generator=generator).abs_()
        for dimension in (0, 1):
            channels = [1] * len(shape)
            channels[dimension] = shape[dimension]
            scores *= torch.exp(UNEVENNESS * torch.randn(channels, generator=generator))
        pruned = round(self.sparsity * scores.numel())
        return scores > scores.flatten().kthvalue(pruned).values


def _is_pruned(layer: nn.Module, weight: Tensor) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.in_channels > 3
    return len(weight) != CLASSES


def _cases() -> list[EngineCase]:
    """First what has goals. Of batch 1 and batch 16: at 80, 90 and 95 %, and at 90 % with uneven masks."""
    deepsparse = {
        ("resnet50", 1): {0.8: Goal(1.15, 1.4), 0.9: Goal(1.2, 1.5), 0.95: Goal(1.3, 1.75)},
        ("resnet50", 16): {0.8: Goal(0.85, 1.0), 0.9: Goal(0.92, 1.1), 0.95: Goal(0.95, 1.15)},
        ("resnet18", 1): {0.9: Goal(1.15, 1.5)},
        ("resnet18", 16): {0.9: Goal(0.9, 1.1)},
        ("mobilenet_v2", 1): {0.9: Goal(0.8, 1.2)},
        ("mobilenet_v2", 16): {0.9: Goal(0.7, 1.0)},
        ("vgg16", 1): {0.9: Goal(0.9, 1.3)},
        ("vgg16", 16): {0.9: Goal(0.9, 1.1)},
        (FEED_FORWARD, 1): {0.9: Goal(1.0, 1.5)},
        (FEED_FORWARD, 16): {0.9: Goal(0.9, 1.1)},
    }
    others = {
        ("resnet50", 1): {"OpenVINO": Goal(1.4, 1.9)},
        ("resnet50", 16): {"OpenVINO": Goal(2.1, 2.5)},
        ("mobilenet_v2", 1): {"onnxruntime": Goal(1.1, 1.5)},
        ("mobilenet_v2", 16): {"onnxruntime": Goal(2.0, 3.0)},
    }
    found = []
    for (network, batch), by_sparsity in deepsparse.items():
        for sparsity in (0.9, 0.8, 0.95):
            goals = {"DeepSparse": by_sparsity[sparsity]} if sparsity in by_sparsity else {}
            goals |= others.get((network, batch), {}) if sparsity == 0.9 else {}
            found.append(EngineCase(network, batch, sparsity, goals=goals))
        found.append(EngineCase(network, batch, 0.9, even=False))
    return found


ENGINE_CASES = _cases()
