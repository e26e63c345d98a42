"""Parts of a transformer as networks of their own, for `bench.cases.networks`: the sizes of ViT-B's."""

from __future__ import annotations

from torch import Tensor, nn

WIDTH, HEADS, HIDDEN = 768, 12, 3072


class _OfTokens(nn.Module):
    """Tokens [N, 1, tokens, WIDTH], as images of one channel, through `part` to logits [N, classes] of their mean."""

    def __init__(self, part: nn.Module, classes: int) -> None:
        super().__init__()
        self.part = part
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.part(tokens.squeeze(1)).mean(1))
        return logits


def transformer_block(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Self-attention and a feed-forward network."""
    block = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True)
    return _OfTokens(block, classes)


def feed_forward(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The feed-forward network alone."""
    return _OfTokens(nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)), classes)
