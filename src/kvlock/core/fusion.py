"""The blend itself (KV-Lock, KV fusion)."""

from torch import Tensor


def fusion_weight(
    fusion_ratio: Tensor, background: Tensor, foreground_ratio: float = 0.0
) -> Tensor:
    """alpha, [B] or [B, L], on background tokens bool [B, L], `foreground_ratio` on others (KV-Lock: 0): [B, L, 1]."""
    weight = fusion_ratio.view(len(background), -1) * background
    if foreground_ratio:
        weight = weight + foreground_ratio * ~background
    return weight[..., None]


def fuse_(edited: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """`edited <- weight * source + (1 - weight) * edited`, in place; keys or values, tokens on axis 1."""
    weight = weight.to(edited.dtype)
    return edited.lerp_(
        source, weight.view(*weight.shape[:2], *[1] * (edited.ndim - 2)).expand_as(edited)
    )
