"""FlowEdit (arXiv 2412.08629): from source to edit by the difference of two velocities, no inversion."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.types import Prompt, StepRecord
from kvlock.core.clips import Clips
from kvlock.core.guidance import guide
from kvlock.core.trace import check_finite
from kvlock.methods.dropping.velocities import Predict, dropped_velocities
from kvlock.methods.options import FlowEditConfig


@torch.no_grad()
def denoise(
    backbone: Backbone,
    clips: Clips,
    config: FlowEditConfig,
    on_step: Callable[[list[StepRecord]], None] | None = None,
) -> tuple[Tensor, list[tuple[StepRecord, ...]]]:
    """Clips of the same size together; arguments, result and errors as `kvlock.core.edit.denoise`.

    z_edit starts at the source x; at noise level sigma, with fresh noise n,
    z_src = (1 - sigma) x + sigma n, z_tar = z_edit + z_src - x, and z_edit moves by the difference
    of the velocities, v_tar(z_tar) - v_src(z_src).
    """
    size = clips.latent_size
    sampler = backbone.sampler(config.num_inference_steps, multistep=False, latent_size=size)
    predict = differences(backbone, clips, config, clips.foreground)
    generators = [torch.Generator().manual_seed(seed) for seed in clips.seeds]

    edited = clips.source
    records: list[list[StepRecord]] = []
    for step in range(config.first_step, config.num_inference_steps):
        difference = torch.zeros_like(edited)
        for _ in range(config.num_noises):
            noises = [torch.randn(edited.shape[1:], generator=g) for g in generators]
            noise = torch.stack(noises).to(edited.device)
            source = sampler.add_noise(clips.source, noise, step)
            target = edited + source - clips.source
            difference += predict(source, target, sampler.timestep(step)) / config.num_noises
        moved = sampler.step(edited, difference, step)
        edited = torch.where(clips.foreground[:, None], moved, edited) if config.masked else moved
        check_finite(torch.isfinite(edited).all(), step)
        omega = config.target_boost * config.guidance_scale if config.guidance_scale > 1 else 1.0
        record = StepRecord(step, float(sampler.sigmas[step]), None, 0.0, omega, None)
        records.append([record] * len(generators))
        if on_step:
            on_step(records[-1])
    return edited, list(zip(*records))


def differences(
    backbone: Backbone, clips: Clips, config: FlowEditConfig, foreground: Tensor
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(z_src, z_tar, timestep) -> v_tar - v_src, each guided. foreground: as in `Dropped`."""
    guided = config.guidance_scale > 1
    prompts = [clips.source_prompt, clips.prompt]
    if guided:
        prompts += [clips.negative_prompt] * 2
    if config.drop:
        velocities = dropped_velocities(backbone, clips, prompts, config.drop, foreground)
    else:
        velocities = _batched(backbone, clips, prompts)
    one = clips.source.new_ones(len(clips.source_of))
    scales = (config.guidance_scale * one, config.target_boost * config.guidance_scale * one)

    def predict(source: Tensor, target: Tensor, timestep: Tensor) -> Tensor:
        branches = velocities(source, target, timestep)
        if not guided:
            return branches[1] - branches[0]
        v_source, v_target = (guide(branches[i], branches[i + 2], scales[i], one) for i in (0, 1))
        return v_target - v_source

    return predict


def _batched(backbone: Backbone, clips: Clips, prompts: list[Prompt]) -> Predict:
    """As `dropped_velocities` with all branches whole, in one forward."""
    prompt = Prompt.stack(prompts)
    condition = None if clips.condition is None else torch.cat([clips.condition] * len(prompts))

    def predict(source: Tensor, target: Tensor, timestep: Tensor) -> list[Tensor]:
        latents = torch.cat([source, target] * (len(prompts) // 2))
        times = timestep.expand(len(latents))
        return list(backbone.predict(latents, times, prompt, condition).chunk(len(prompts)))

    return predict
