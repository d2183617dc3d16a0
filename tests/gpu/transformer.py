"""A decoder of nanoGPT's shape, for a number to compare with: 6 layers of 384, 6 heads, 256 characters of context."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); (batch, time, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, time, width)), drop)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm_2(x)))), drop)


class Transformer(nn.Module):
    """Ids (batch, time) to the mean cross-entropy of the next ids; the readout shares the table of characters."""

    def __init__(self, vocab: int, width: int, layers: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm, self.dropout = nn.LayerNorm(width, bias=False), nn.Dropout(dropout)
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)
        for block in self.blocks:
            for last in (block.out, block.down):
                nn.init.normal_(last.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        places = self.places(torch.arange(ids.shape[1], device=ids.device))
        x = self.norm(self.blocks(self.dropout(self.characters(ids) + places)))
        logits = x @ self.characters.weight.t()
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction=reduction)


def batches(ids: Tensor, batch: int, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield windows at random places of a text that lies on the device: inputs and targets (batch, context)."""
    steps = torch.arange(context, device=ids.device)
    while True:
        at = torch.randint(len(ids) - context - 1, (batch, 1), device=ids.device) + steps
        yield ids[at], ids[at + 1]


@torch.no_grad()
def validation_loss(model: nn.Module, ids: Tensor, context: int) -> float:
    """Return nats a character over a whole text, in windows that do not overlap."""
    windows = (len(ids) - 1) // context
    inputs, targets = (ids[i : i + windows * context].view(windows, context) for i in (0, 1))
    sums = [model(x, y, "sum") for x, y in zip(inputs.split(128), targets.split(128), strict=True)]
    return float(torch.stack(sums).double().sum()) / (windows * context)
