"""What an edit is made from: requests in, latents and masks out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.mask import latent_foreground
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest


@dataclass(frozen=True)
class Clips:
    """What stays the same during an edit: source latents and noise [B, C, F, H, W], foreground bool [B, F, H, W]."""

    source: Tensor
    noise: Tensor
    foreground: Tensor
    condition: Tensor | None


def prepare_clips(backbone: Backbone, requests: list[EditRequest]) -> Clips:
    """Encode clips of the same size; each clip's noise is its own seed's.

    Raises ValueError for an unsuitable request, or clips of different sizes.
    """
    for request in requests:
        check_request(request)
    if len({r.video.shape for r in requests}) != 1:
        raise ValueError("clips that are edited together must have the same size and frame count")
    video, mask = torch.stack([r.video for r in requests]), torch.stack([r.mask for r in requests])
    foreground = latent_foreground(mask, backbone.vae_stride).to(backbone.device)
    source = backbone.encode_video(video)
    # The noise is drawn on the CPU, one generator a clip: neither the device nor the batch changes it.
    noises = [torch.randn(source.shape[1:], generator=torch.Generator().manual_seed(r.seed)) for r in requests]
    return Clips(source, torch.stack(noises).to(source.device), foreground, backbone.condition(video, mask))


def check_request(request: EditRequest) -> None:
    """Raise ValueError, with what was expected, for a request that no model could take."""
    video, mask = request.video, request.mask
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != torch.uint8:
        raise ValueError(f"video is {video.dtype} {tuple(video.shape)}; expected uint8 [F, H, W, 3]")
    if mask.dtype != torch.bool or mask.shape != video.shape[:3]:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool {tuple(video.shape[:3])}")
    if not mask.any():
        raise ValueError("the mask is empty, so nothing may be edited; mark the region to edit as True (white)")
    if not request.prompt.strip():
        raise ValueError("the prompt is empty; describe the edited clip")
