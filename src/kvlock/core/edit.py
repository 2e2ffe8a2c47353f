"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.calibrated import nearby_variance, path_variance, usual_variance
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import guide, optimal_scale, project
from kvlock.core.inversion import inverted_path, shift_latents
from kvlock.core.protocols import Backbone, Sampler
from kvlock.core.rows import Rows, prepare_rows
from kvlock.core.schedule import control_at
from kvlock.core.tap import attached
from kvlock.core.trace import Trace
from kvlock.core.types import Control, EditRequest, EditResult, StepRecord, StepTensors
from kvlock.core.variance import windowed_variance

OnStep = Callable[[list[StepRecord]], None]
Observe = Callable[[StepTensors], None]


@torch.no_grad()
def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: KVLockConfig,
    on_step: OnStep | None = None,
    observe: Observe | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together; a clip's result does not depend on the others.

    The clips' size must suit the model: sides that divide by VAE stride times patch, and stride*n+1 frames.
    `on_step` gets each clip's record of the step just made, `observe` its tensors before it is made; without `on_step`
    nothing waits for the device until the last step.
    Raises ValueError for an unsuitable request, NonFiniteError if the latents stop being finite.
    """
    clips = prepare_clips(backbone, requests)
    anchored = config.background_anchor == "latents" or (config.background_anchor == "auto" and backbone.needs_anchor)
    pasted = anchored or config.drop_background != "none"
    sampler = backbone.sampler(config.num_inference_steps, multistep=not pasted)
    region = clips.foreground if config.detection == "local" else torch.ones_like(clips.foreground)
    rows = prepare_rows(backbone, sampler, requests, clips, config)
    source_at = _source_path(clips, sampler, rows, config)
    own = clips.foreground if anchored else rows.computed

    latents = _start(clips, sampler, source_at, config)
    predictions: tuple[Tensor, ...] = ()
    momentum = None
    trace = Trace(rows.tap.background)
    with attached(rows.tap, backbone.attention_sites()):
        for step in range(config.first_step, config.num_inference_steps):
            variance, nearby = _watched(predictions, region, sampler.sigmas[: step + 1], backbone.patch_size, config)
            control = control_at(config, step, variance, clips.source[:, 0, 0, 0, 0], nearby)
            velocities, control = rows.predict(step, latents, source_at(step), control)
            guided = _guided(velocities, latents, control, config, sampler, step, momentum)
            momentum = guided.momentum
            watched = guided.velocity if config.signal == "guided" else velocities[0]
            predictions = (*predictions, sampler.denoised(latents, watched, step))[-config.window_steps :]
            if observe:
                branches = tuple(sampler.denoised(latents, v, step) for v in velocities)
                observe(StepTensors(step, sampler.denoised(latents, guided.velocity, step), branches))
            latents = sampler.step(latents, guided.velocity, step)
            if pasted:
                latents = torch.where(own[:, None], latents, source_at(step + 1))
            trace.add(step, sampler.sigmas[step], latents, variance, control, guided.scale)
            if on_step:
                on_step(trace.latest())
    traces = trace.records()
    videos = backbone.decode_video(latents)
    return [EditResult(video.cpu(), records) for video, records in zip(videos, traces)]


def _source_path(clips: Clips, sampler: Sampler, rows: Rows, config: KVLockConfig) -> Callable[[int], Tensor]:
    """The source at the noise level of each step: noised with the noise that the edit starts from, or inverted."""
    if config.source_path == "noised":
        return lambda step: sampler.add_noise(clips.source, clips.noise, step)
    return inverted_path(rows, sampler, clips.source, config.num_inference_steps).__getitem__


def _start(clips: Clips, sampler: Sampler, source_at: Callable[[int], Tensor], config: KVLockConfig) -> Tensor:
    if config.source_path == "inverted":
        latents = source_at(config.first_step)
    elif config.strength == 1:
        latents = clips.start
    else:
        latents = sampler.add_noise(clips.source, clips.start, config.first_step)
    if config.latents_shift:
        latents = shift_latents(latents, clips.start, clips.foreground, config.latents_shift)
    return latents


def _watched(
    predictions: tuple[Tensor, ...],
    region: Tensor,
    sigmas: Sequence[float],
    patch_size: tuple[int, int, int],
    config: KVLockConfig,
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """The variance [B] and, where tokens have their own alpha, that around each; in multiples of what is usual.

    sigmas: the noise levels up to this step's.
    """
    variance = windowed_variance(predictions, region)
    nearby = nearby_variance(predictions, region, config.lock_width, patch_size) if config.lock_width else None
    if not config.usual or variance is None:
        return variance, nearby
    *levels, sigma = sigmas[-len(predictions) - 1 :]
    usual = usual_variance(config.usual, sigma) * path_variance(levels)
    return variance / usual, nearby and (nearby[0] / usual, nearby[1])


@dataclass(frozen=True)
class _Guided:
    """The guided velocity, s* where it is in use, and what adaptive projected guidance carries to the next step."""

    velocity: Tensor
    scale: Tensor | None = None
    momentum: Tensor | None = None


def _guided(
    velocities: list[Tensor],
    latents: Tensor,
    control: Control,
    config: KVLockConfig,
    sampler: Sampler,
    step: int,
    momentum: Tensor | None,
) -> _Guided:
    if step < config.count(config.zero_init_steps):
        return _Guided(torch.zeros_like(latents))
    if len(velocities) == 1:
        return _Guided(velocities[0])
    conditional, unconditional = velocities
    omega = control.guidance_scale
    if config.guidance == "apg" and step >= config.first_lock_step:
        cond, uncond = (sampler.denoised(latents, v, step) for v in velocities)
        denoised, momentum = project(cond, uncond, omega, momentum)
        return _Guided((latents - denoised) / sampler.sigmas[step], momentum=momentum)
    if not config.unconditional_scale:
        return _Guided(guide(conditional, unconditional, omega, torch.ones_like(omega)))
    scale = optimal_scale(conditional, unconditional)
    return _Guided(guide(conditional, unconditional, omega, scale), scale)
