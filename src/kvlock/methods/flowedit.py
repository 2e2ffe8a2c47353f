"""FlowEdit (arXiv 2412.08629): from the source to the edit by the difference of two velocities, without inversion."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.guidance import guide
from kvlock.core.protocols import Backbone
from kvlock.core.trace import check_finite
from kvlock.core.types import EditRequest, EditResult, StepRecord
from kvlock.methods.table import FlowEditConfig


@torch.no_grad()
def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: FlowEditConfig,
    on_step: Callable[[list[StepRecord]], None] | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together; arguments and errors as `kvlock.core.edit.edit_clips`.

    z_edit starts at the source x; at noise level sigma, with fresh noise n, z_src = (1 - sigma) x + sigma n,
    z_tar = z_edit + z_src - x, and z_edit += (sigma' - sigma) (v_tar(z_tar) - v_src(z_src)).
    """
    clips = prepare_clips(backbone, requests)
    sampler = backbone.sampler(config.num_inference_steps, multistep=False)
    predict = _predictor(backbone, requests, clips, config)
    generators = [torch.Generator().manual_seed(r.seed) for r in requests]

    edited = clips.source
    records: list[list[StepRecord]] = []
    for step in range(config.first_step, config.num_inference_steps):
        sigma, following = sampler.sigmas[step], sampler.sigmas[step + 1]
        difference = torch.zeros_like(edited)
        for _ in range(config.num_noises):
            noise = torch.stack([torch.randn(edited.shape[1:], generator=g) for g in generators]).to(edited.device)
            source = sampler.add_noise(clips.source, noise, step)
            difference += predict(source, edited + source - clips.source, sampler.timestep(step)) / config.num_noises
        update = (following - sigma) * difference
        edited = edited + (torch.where(clips.foreground[:, None], update, 0) if config.masked else update)
        check_finite(torch.isfinite(edited).all(), step)
        omega = config.target_boost * config.guidance_scale if config.guidance_scale > 1 else 1.0
        record = StepRecord(step, float(sigma), None, 0.0, omega, None)
        records.append([record] * len(requests))
        if on_step:
            on_step(records[-1])
    videos = backbone.decode_video(edited)
    return [EditResult(video.cpu(), tuple(trace)) for video, trace in zip(videos, zip(*records))]


def _predictor(
    backbone: Backbone, requests: list[EditRequest], clips: Clips, config: FlowEditConfig
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(z_src, z_tar, timestep) -> v_tar - v_src, each guided; all rows in one forward."""
    count, guided = len(requests), config.guidance_scale > 1
    prompts = [[r.source_prompt for r in requests], [r.prompt for r in requests]]
    if guided:
        prompts += [[r.negative_prompt for r in requests]] * 2
    embeds = torch.cat([backbone.encode_prompt(texts) for texts in prompts])
    condition = None if clips.condition is None else torch.cat([clips.condition] * len(prompts))
    one = clips.source.new_ones(count)
    scales = (config.guidance_scale * one, config.target_boost * config.guidance_scale * one)

    def predict(source: Tensor, target: Tensor, timestep: Tensor) -> Tensor:
        latents = torch.cat([source, target] * (len(prompts) // 2))
        times = timestep.to(latents.device).expand(len(latents))
        rows = backbone.predict(latents, times, embeds, condition).chunk(len(prompts))
        if not guided:
            return rows[1] - rows[0]
        v_source, v_target = (guide(rows[i], rows[i + 2], scales[i], one) for i in (0, 1))
        return v_target - v_source

    return predict
