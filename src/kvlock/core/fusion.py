"""The blend itself (KV-Lock, KV fusion)."""

import torch
from torch import Tensor


def fusion_weight(fusion_ratio: Tensor, background: Tensor, foreground_ratio: float = 0.0) -> Tensor:
    """alpha, [B] or [B, L], on background tokens bool [B, L], `foreground_ratio` on others (KV-Lock: 0): [B, L, 1]."""
    weight = fusion_ratio.view(len(background), -1) * background
    if foreground_ratio:
        weight = weight + foreground_ratio * ~background
    return weight[..., None]


def fuse_(edited: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """`edited <- weight * source + (1 - weight) * edited`, in place; keys or values, tokens on axis 1."""
    weight = weight.to(edited.dtype)
    return edited.lerp_(source, weight.view(*weight.shape[:2], *[1] * (edited.ndim - 2)).expand_as(edited))


def fuse_tokens_(edited: Tensor, source: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """The same where `source` holds the tokens of `kept` bool [B, L] alone, [number of True in `kept`, ...]."""
    new = edited[kept]
    weights = weight[kept].to(edited.dtype)
    edited[kept] = torch.lerp(new, source, weights.view(-1, *[1] * (new.ndim - 1)).expand_as(new))
    return edited
