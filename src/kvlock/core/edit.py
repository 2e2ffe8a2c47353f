"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import guide, optimal_scale
from kvlock.core.mask import latent_foreground, token_foreground
from kvlock.core.protocols import AttentionSite, Backbone
from kvlock.core.schedule import control_at, may_lock
from kvlock.core.tap import Tap, attached
from kvlock.core.types import Control, EditRequest, EditResult, StepRecord
from kvlock.core.variance import windowed_variance

OnStep = Callable[[list[StepRecord]], None]


class NonFiniteError(ArithmeticError):
    """The latents became NaN or infinite."""


@dataclass(frozen=True)
class Clips:
    """What stays the same during an edit; B clips. Prompt embeddings are [B, L, D]."""

    source: Tensor
    noise: Tensor
    foreground: Tensor
    condition: Any
    source_prompt: Tensor
    prompt: Tensor
    negative_prompt: Tensor


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
    sites = backbone.attention_sites()
    tap = Tap(~token_foreground(clips.foreground, backbone.patch_size))
    region = clips.foreground if config.detection == "local" else torch.ones_like(clips.foreground)
    edited = clips.foreground[:, None]

    latents = clips.noise
    if config.strength < 1:
        latents = sampler.add_noise(clips.source, clips.noise, config.first_step)
    predictions: tuple[Tensor, ...] = ()
    records: list[list[StepRecord]] = []
    with attached(tap, sites):
        for step in range(config.first_step, config.num_inference_steps):
            variance = windowed_variance(predictions, region)
            control = control_at(config, step, variance, like=clips.source[:, 0, 0, 0, 0])
            source = sampler.add_noise(clips.source, clips.noise, step) if may_lock(config, step) else None
            conditional, unconditional = _predict(
                backbone, tap, sites, clips, latents, source, sampler.timestep(step), control, config
            )
            velocity, scale = _guided(conditional, unconditional, control, config)
            predictions = (*predictions, sampler.denoised(latents, velocity, step))[-config.window :]
            latents = sampler.step(latents, velocity, step)
            if anchored:
                latents = torch.where(edited, latents, sampler.add_noise(clips.source, clips.noise, step + 1))
            _check_finite(latents, step)
            records.append(_records(step, sampler.sigmas[step], variance, control, scale))
            if on_step:
                on_step(records[-1])
    videos = backbone.decode_video(latents)
    return [EditResult(video.cpu(), tuple(trace)) for video, trace in zip(videos, zip(*records))]


def _prepare(backbone: Backbone, requests: list[EditRequest]) -> Clips:
    for request in requests:
        _check_request(request)
    if len({r.video.shape for r in requests}) != 1:
        raise ValueError("clips that are edited together must have the same size and frame count")
    video, mask = torch.stack([r.video for r in requests]), torch.stack([r.mask for r in requests])
    foreground = latent_foreground(mask, backbone.vae_stride).to(backbone.device)
    source = backbone.encode_video(video)
    # The noise is drawn on the CPU, one generator a clip: neither the device nor the batch changes it.
    shape = source.shape[1:]
    noises = [torch.randn(shape, generator=torch.Generator().manual_seed(r.seed)) for r in requests]
    return Clips(
        source,
        torch.stack(noises).to(source.device),
        foreground,
        backbone.condition(video, mask),
        backbone.encode_prompt([r.source_prompt for r in requests]),
        backbone.encode_prompt([r.prompt for r in requests]),
        backbone.encode_prompt([r.negative_prompt for r in requests]),
    )


def _check_request(request: EditRequest) -> None:
    video, mask = request.video, request.mask
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != torch.uint8:
        raise ValueError(f"video is {video.dtype} {tuple(video.shape)}; expected uint8 [F, H, W, 3]")
    if mask.dtype != torch.bool or mask.shape != video.shape[:3]:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool {tuple(video.shape[:3])}")
    if not mask.any():
        raise ValueError("the mask is empty, so nothing may be edited; mark the region to edit as True (white)")
    if not request.prompt.strip():
        raise ValueError("the prompt is empty; describe the edited clip")


def _predict(
    backbone: Backbone,
    tap: Tap,
    sites: list[AttentionSite],
    clips: Clips,
    latents: Tensor,
    source: Tensor | None,
    timestep: Tensor,
    control: Control,
    config: KVLockConfig,
) -> tuple[Tensor, Tensor | None]:
    """Conditional and unconditional prediction, the source's keys and values handed over where `source` is given."""
    guided = config.guidance_scale > 1
    prompts = [clips.prompt, clips.negative_prompt] if guided else [clips.prompt]

    def forward(rows: list[Tensor], embeds: list[Tensor]) -> tuple[Tensor, ...]:
        condition = None if clips.condition is None else torch.cat([clips.condition] * len(rows))
        times = timestep.to(latents.device).expand(len(rows) * len(latents))
        return backbone.predict(torch.cat(rows), times, torch.cat(embeds), condition).chunk(len(rows))

    if config.rows == "batched":
        if source is None:
            predictions = forward([latents] * len(prompts), prompts)
        else:
            with _locked(tap.handing_over(control.fusion_ratio), tap, sites):
                predictions = forward([source] + [latents] * len(prompts), [clips.source_prompt, *prompts])[1:]
    elif source is None:
        predictions = [forward([latents], [p])[0] for p in prompts]
    else:
        with _locked(tap.recording(), tap, sites):
            forward([source], [clips.source_prompt])
        predictions = []
        for prompt in prompts:
            with _locked(tap.fusing(control.fusion_ratio), tap, sites):
                predictions += forward([latents], [prompt])
        tap.release()
    return predictions[0], predictions[1] if guided else None


@contextmanager
def _locked(flow: Any, tap: Tap, sites: list[AttentionSite]) -> Iterator[None]:
    with flow:
        yield
    tap.check_heard(sites)


def _guided(
    conditional: Tensor, unconditional: Tensor | None, control: Control, config: KVLockConfig
) -> tuple[Tensor, Tensor | None]:
    """The guided velocity, and s* where it is in use."""
    if unconditional is None:
        return conditional, None
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
