"""What an edit is made from: requests in, latents and masks out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.mask import latent_foreground
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest


@dataclass(frozen=True)
class Clips:
    """What stays the same during an edit of B clips.

    source, noise, start: latents [B, C, F, H, W]; the source is noised with `noise`, an edit begins at `start`, which
    differs from it inside the mask where background and foreground have their own seeds. foreground: bool
    [B, F, H, W]. firsts: one clip of each source; source_of: for each clip, which of them.
    """

    source: Tensor
    noise: Tensor
    start: Tensor
    foreground: Tensor
    condition: Tensor | None
    firsts: list[int]
    source_of: list[int]


def prepare_clips(backbone: Backbone, requests: list[EditRequest]) -> Clips:
    """Encode clips of the same size; each clip's noise is its own seed's.

    Raises ValueError for an unsuitable request, or clips of different sizes.
    """
    for request in requests:
        check_request(request)
    if len({r.video.shape for r in requests}) != 1:
        raise ValueError("clips that are edited together must have the same size and frame count")
    keys = [_source_key(r) for r in requests]
    firsts = [keys.index(key) for key in dict.fromkeys(keys)]
    source_of = [list(dict.fromkeys(keys)).index(key) for key in keys]
    video, mask = (torch.stack([getattr(requests[i], name) for i in firsts]) for name in ("video", "mask"))
    foreground = latent_foreground(mask, backbone.vae_stride)[source_of].to(backbone.device)
    source = backbone.encode_video(video)[source_of]
    condition = backbone.condition(video, mask)
    shape = source.shape[1:]
    own = torch.stack([_noise(r.seed, shape) for r in requests]).to(source.device)
    noise = torch.stack([_noise(_background_seed(r), shape) for r in requests]).to(source.device)
    start = torch.where(foreground[:, None], own, noise)
    return Clips(
        source, noise, start, foreground, None if condition is None else condition[source_of], firsts, source_of
    )


def _source_key(request: EditRequest) -> tuple[int, int, str, int]:
    """Requests of equal keys share their source; tensors are told apart by identity."""
    return id(request.video), id(request.mask), request.source_prompt, _background_seed(request)


def _background_seed(request: EditRequest) -> int:
    return request.seed if request.background_seed is None else request.background_seed


def _noise(seed: int, shape: torch.Size) -> Tensor:
    """Drawn on the CPU, one generator a clip: neither the device nor the batch changes it."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
