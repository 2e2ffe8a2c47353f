"""What an edit is made from: requests in; prompts, latents and masks out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone, Size
from kvlock.contract.types import EditRequest, Prompt, check_request
from kvlock.core.mask import latent_foreground


@dataclass(frozen=True)
class Clips:
    """What stays the same during an edit of B clips.

    source, noise, start: latents [B, C, F, H, W]; the source is noised with `noise`, an edit begins
    at `start`, which differs from it inside the mask where foreground and background have their own
    seeds. foreground: bool [B, F, H, W]. condition: what else the model sees, [B, ...].
    Clips may share their source: `firsts` is one clip of each, `source_of` says which of them is
    each clip's. seeds: of the edits' own noise.
    """

    source_prompt: Prompt
    prompt: Prompt
    negative_prompt: Prompt
    source: Tensor
    noise: Tensor
    start: Tensor
    foreground: Tensor
    condition: Tensor | None
    firsts: list[int]
    source_of: list[int]
    seeds: list[int]

    @property
    def latent_size(self) -> Size:
        """Frames, height and width."""
        return self.source.shape[2:]  # type: ignore[return-value]


def prepare_clips(backbone: Backbone, requests: list[EditRequest]) -> Clips:
    """Encode the prompts, then clips of the same size; each clip's noise is its own seed's.

    Raises ValueError for an unsuitable request, or clips of different sizes.
    """
    for request in requests:
        check_request(request)
    if len({r.video.shape for r in requests}) != 1:
        raise ValueError(
            "clips edited together have different sizes; expected one size and frame count"
        )
    source_prompt, prompt, negative_prompt = (
        backbone.encode_prompt([getattr(r, name) for r in requests])
        for name in ("source_prompt", "prompt", "negative_prompt")
    )
    keys = [_source_key(r) for r in requests]
    sources = list(dict.fromkeys(keys))
    firsts, source_of = [keys.index(key) for key in sources], [sources.index(key) for key in keys]
    own = [requests[i] for i in firsts]
    mask = torch.stack([r.mask for r in own])
    foreground = latent_foreground(mask, backbone.vae_stride)[source_of].to(backbone.device)
    source = backbone.encode_video(torch.stack([r.video for r in own]))[source_of]
    condition = backbone.condition(own)
    if condition is not None:
        condition = condition[source_of]
    noise = _noise([_background_seed(r) for r in requests], source)
    seeds = [r.seed for r in requests]
    start = torch.where(foreground[:, None], _noise(seeds, source), noise)
    return Clips(
        source_prompt,
        prompt,
        negative_prompt,
        source,
        noise,
        start,
        foreground,
        condition,
        firsts,
        source_of,
        seeds,
    )


def _source_key(request: EditRequest) -> tuple[int, int, str, int]:
    """Requests of equal keys share their source; tensors are told apart by identity."""
    return id(request.video), id(request.mask), request.source_prompt, _background_seed(request)


def _background_seed(request: EditRequest) -> int:
    return request.seed if request.background_seed is None else request.background_seed


def _noise(seeds: list[int], like: Tensor) -> Tensor:
    """Drawn on the CPU, one generator a clip: neither the device nor the batch changes it."""
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in generators]).to(
        like.device
    )
