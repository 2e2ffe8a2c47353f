"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import guide, optimal_scale
from kvlock.core.mask import latent_foreground, token_foreground
from kvlock.core.protocols import Backbone
from kvlock.core.rows import Rows
from kvlock.core.schedule import control_at, may_lock
from kvlock.core.tap import Tap, attached
from kvlock.core.types import Control, EditRequest, EditResult, StepRecord
from kvlock.core.variance import windowed_variance

OnStep = Callable[[list[StepRecord]], None]


class NonFiniteError(ArithmeticError):
    """The latents became NaN or infinite."""


@torch.no_grad()
def edit_clips(
    backbone: Backbone, requests: list[EditRequest], config: KVLockConfig, on_step: OnStep | None = None
) -> list[EditResult]:
    """Edit clips of the same size together; a clip's result does not depend on the others.

    The clips' size must suit the model: sides that divide by VAE stride times patch, and stride*n+1 frames.
    `on_step` gets each clip's record of the step just made.
    Raises ValueError for an unsuitable request, NonFiniteError if the latents stop being finite.
    """
    clips = _prepare(backbone, requests)
    anchored = config.background_anchor == "latents" or (config.background_anchor == "auto" and backbone.needs_anchor)
    sampler = backbone.sampler(config.num_inference_steps, multistep=not anchored)
    region = clips.foreground if config.detection == "local" else torch.ones_like(clips.foreground)
    rows = _rows(backbone, requests, clips, config)

    latents = clips.noise
    if config.strength < 1:
        latents = sampler.add_noise(clips.source, clips.noise, config.first_step)
    predictions: tuple[Tensor, ...] = ()
    records: list[list[StepRecord]] = []
    with attached(rows.tap, rows.sites):
        for step in range(config.first_step, config.num_inference_steps):
            variance = windowed_variance(predictions, region)
            control = control_at(config, step, variance, like=clips.source[:, 0, 0, 0, 0])
            if may_lock(config, step):
                source = sampler.add_noise(clips.source, clips.noise, step)
                velocities = rows.locked(latents, source, sampler.timestep(step), control.fusion_ratio)
            else:
                velocities = rows.free(latents, sampler.timestep(step))
            velocity, scale = _guided(velocities, control, config)
            predictions = (*predictions, sampler.denoised(latents, velocity, step))[-config.window :]
            latents = sampler.step(latents, velocity, step)
            if anchored:
                source = sampler.add_noise(clips.source, clips.noise, step + 1)
                latents = torch.where(clips.foreground[:, None], latents, source)
            _check_finite(latents, step)
            records.append(_records(step, sampler.sigmas[step], variance, control, scale))
            if on_step:
                on_step(records[-1])
    videos = backbone.decode_video(latents)
    return [EditResult(video.cpu(), tuple(trace)) for video, trace in zip(videos, zip(*records))]


@dataclass(frozen=True)
class _Clips:
    """What stays the same during an edit: source latents and noise [B, C, F, H, W], foreground bool [B, F, H, W]."""

    source: Tensor
    noise: Tensor
    foreground: Tensor
    condition: Tensor | None


def _prepare(backbone: Backbone, requests: list[EditRequest]) -> _Clips:
    for request in requests:
        check_request(request)
    if len({r.video.shape for r in requests}) != 1:
        raise ValueError("clips that are edited together must have the same size and frame count")
    video, mask = torch.stack([r.video for r in requests]), torch.stack([r.mask for r in requests])
    foreground = latent_foreground(mask, backbone.vae_stride).to(backbone.device)
    source = backbone.encode_video(video)
    # The noise is drawn on the CPU, one generator a clip: neither the device nor the batch changes it.
    noises = [torch.randn(source.shape[1:], generator=torch.Generator().manual_seed(r.seed)) for r in requests]
    return _Clips(source, torch.stack(noises).to(source.device), foreground, backbone.condition(video, mask))


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


def _rows(backbone: Backbone, requests: list[EditRequest], clips: _Clips, config: KVLockConfig) -> Rows:
    prompts = [backbone.encode_prompt([r.prompt for r in requests])]
    if config.guidance_scale > 1:
        prompts.append(backbone.encode_prompt([r.negative_prompt for r in requests]))
    return Rows(
        backbone,
        Tap(background=~token_foreground(clips.foreground, backbone.patch_size)),
        backbone.attention_sites(),
        backbone.encode_prompt([r.source_prompt for r in requests]),
        prompts,
        clips.condition,
        batched=config.rows == "batched",
    )


def _guided(velocities: list[Tensor], control: Control, config: KVLockConfig) -> tuple[Tensor, Tensor | None]:
    """The guided velocity, and s* where it is in use."""
    if len(velocities) == 1:
        return velocities[0], None
    conditional, unconditional = velocities
    if not config.unconditional_scale:
        return guide(conditional, unconditional, control.guidance_scale, torch.ones_like(control.guidance_scale)), None
    scale = optimal_scale(conditional, unconditional)
    return guide(conditional, unconditional, control.guidance_scale, scale), scale


def _check_finite(latents: Tensor, step: int) -> None:
    if not torch.isfinite(latents).all():
        raise NonFiniteError(
            f"the latents are no longer finite after step {step}; try --dtype float32 or a lower guidance scale"
        )


def _records(
    step: int, sigma: float, variance: Tensor | None, control: Control, scale: Tensor | None
) -> list[StepRecord]:
    """One record a clip."""
    count = len(control.fusion_ratio)
    variances = [None] * count if variance is None else variance.tolist()
    scales = [None] * count if scale is None else scale.tolist()
    ratios, guidances = control.fusion_ratio.tolist(), control.guidance_scale.tolist()
    return [
        StepRecord(step, float(sigma), v, alpha, omega, s)
        for v, alpha, omega, s in zip(variances, ratios, guidances, scales)
    ]
