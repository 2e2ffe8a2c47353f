"""The blend itself (KV-Lock, KV fusion)."""

import torch
from torch import Tensor


def fusion_weight(fusion_ratio: Tensor, background: Tensor) -> Tensor:
    """alpha [B] on background tokens bool [B, L], 0 on foreground tokens: [B, L, 1]."""
    return (fusion_ratio[:, None] * background)[..., None]


def fuse_(edited: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """`edited <- weight * source + (1 - weight) * edited`, in place; keys or values, tokens on axis 1."""
    weight = weight.to(edited.dtype)
    return edited.lerp_(source, weight.view(*weight.shape[:2], *[1] * (edited.ndim - 2)).expand_as(edited))


def fuse_tokens_(edited: Tensor, source: Tensor, fusion_ratio: Tensor, background: Tensor) -> Tensor:
    """The same where `source` holds the background's tokens alone, [number of True in `background`, ...]."""
    clip = background.nonzero()[:, 0]
    weight = fusion_ratio[clip].to(edited.dtype)
    new = edited[background]
    edited[background] = torch.lerp(new, source, weight.view(-1, *[1] * (new.ndim - 1)).expand_as(new))
    return edited
