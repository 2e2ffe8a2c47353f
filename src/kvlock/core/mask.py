"""Pixel mask -> latent mask -> token mask, by maximum: any edited pixel frees its token (KV-Lock, mask)."""

import torch.nn.functional as F
from torch import Tensor


def latent_foreground(mask: Tensor, vae_stride: tuple[int, int, int]) -> Tensor:
    """Pixel mask bool [B, F, H, W] -> latent mask bool [B, f, h, w].

    Time follows a causal video VAE: frame 0 alone, then groups of `vae_stride[0]`.
    Raises ValueError where the mask does not divide by the stride.
    """
    stride_t, stride_h, stride_w = vae_stride
    _, frames, height, width = mask.shape
    if (frames - 1) % stride_t or height % stride_h or width % stride_w:
        raise ValueError(
            f"mask of {frames} frames, {height}x{width} does not fit the VAE's stride {vae_stride}; "
            f"expected {stride_t}n+1 frames and sides that divide by {stride_h} and {stride_w}"
        )
    first = mask[:, :1].float()
    pixels = F.pad(mask.float(), (0, 0, 0, 0, stride_t - 1, 0))
    pixels[:, : stride_t - 1] = first
    return F.max_pool3d(pixels[:, None], vae_stride)[:, 0] > 0


def token_foreground(latent_mask: Tensor, patch_size: tuple[int, int, int]) -> Tensor:
    """Latent mask bool [B, f, h, w] -> token mask bool [B, L] in token order.

    Raises ValueError where the latents do not divide by the patch size.
    """
    if any(size % patch for size, patch in zip(latent_mask.shape[1:], patch_size)):
        raise ValueError(
            f"latents of {tuple(latent_mask.shape[1:])} do not divide by the patch size {patch_size}"
        )
    return F.max_pool3d(latent_mask.float()[:, None], patch_size).flatten(1) > 0
