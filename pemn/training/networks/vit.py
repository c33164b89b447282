"""`vit-D-W`: a vision transformer of D blocks and W channels a token.

Patches of 4 pixels, 8 heads of 64, an MLP of 512, dropout of 0.1, a class token, learned positions, norms before what
they feed. Class token, positions and the layer norms' affine terms are trained floats.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; sizes and dropout of
github.com/kentaroy47/vision-transformers-cifar10, whose recipe the PEMN paper's ViT rows fit. PEMN's own ViT was never
released; as in its ConvMixer, no layer has a bias here.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pemn.training.networks.patches import patch_grid

PATTERN = re.compile(
    r"vit-([1-9][0-9]?)-([2-9]|[1-9][0-9]{1,3})"
)  # a single channel would be normalised away
NAMES = "vit-D-W"
DETAILS = "depth D 1 .. 99, width W 2 .. 9999, such as vit-6-256"

_PATCH = 4
_HEADS = 8
_HEAD_SIZE = 64
_HIDDEN = 512
_DROPOUT = 0.1


class Attention(nn.Module):
    """Self-attention of all tokens with all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = _HEADS
        self.qkv = nn.Linear(width, 3 * _HEADS * _HEAD_SIZE, bias=False)
        self.out = nn.Linear(_HEADS * _HEAD_SIZE, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns [batch, tokens, width]."""
        # [batch, tokens, 3 * heads * size] -> 3 times [batch, heads, tokens, size]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, _HEAD_SIZE)).permute(2, 0, 3, 1, 4).unbind(0)
        x = scaled_dot_product_attention(q, k, v)
        attended: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return attended


class Block(nn.Module):
    """Attention, then an MLP, each around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.dropout = nn.Dropout(_DROPOUT)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(width, _HIDDEN, bias=False),
                gelu=nn.GELU(),
                dropout1=nn.Dropout(_DROPOUT),
                linear2=nn.Linear(_HIDDEN, width, bias=False),
                dropout2=nn.Dropout(_DROPOUT),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns [batch, tokens, width]."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """A vision transformer; see `pemn.training.networks.build` for what goes in and out."""

    def __init__(self, depth: int, width: int, in_channels: int, num_patches: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, width, _PATCH, stride=_PATCH, bias=False)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + num_patches, width))
        self.dropout = nn.Dropout(_DROPOUT)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits."""
        x = self.embed(image).flatten(2).transpose(1, 2)  # [batch, patches, width]
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.blocks(self.dropout(x + self.position))
        logits: Tensor = self.head(self.norm(x[:, 0]))  # the class token
        return logits


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    down, across = patch_grid(input_shape, _PATCH, name[0])
    return ViT(int(name[1]), int(name[2]), input_shape[0], down * across, num_classes)
