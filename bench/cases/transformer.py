"""A block of a transformer as a network of its own, for `bench.cases.networks`: the sizes of ViT-B's."""

from __future__ import annotations

from torch import Tensor, nn

WIDTH, HEADS, HIDDEN = 768, 12, 3072


class Block(nn.Module):
    """Tokens [N, 1, tokens, WIDTH], as images of one channel, through self-attention and a feed-forward network to logits
    [N, classes] of their mean."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(tokens.squeeze(1)).mean(1))
        return logits


def block(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """What `module:function` asks for."""
    return Block(classes)
