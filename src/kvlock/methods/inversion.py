"""The source at every noise level, and the start inside the mask, as methods with an inversion have them."""

import torch
from torch import Tensor

from kvlock.contract.types import pick
from kvlock.core.branches import Branches


def inverted_path(branches: Branches) -> list[Tensor]:
    """Latents of the source at the start of each step and, last, the source itself.

    Uni-Inv (UniEdit-Flow, arXiv 2504.13109): walk from clean to noise; predict the next point with
    the velocity at hand, evaluate the velocity there, and make the step from the stored point with
    that one. Source prompt, no guidance; steps + 1 forwards. For flow matching alone.
    """
    sampler, latents = branches.sampler, branches.clips.source
    steps = branches.config.num_inference_steps
    path, velocity = [latents], source_alone(branches, latents, sampler.timestep(steps))
    for step in reversed(range(steps)):
        reach = sampler.sigmas[step] - sampler.sigmas[step + 1]
        velocity = source_alone(branches, latents + reach * velocity, sampler.timestep(step))
        latents = latents + reach * velocity
        path.append(latents)
    return path[::-1]


def source_alone(branches: Branches, source: Tensor, timestep: Tensor) -> Tensor:
    """The prediction for the source with its own prompt, without guidance; one forward a source."""
    clips = branches.clips
    latents, prompt = pick(source, clips.firsts), clips.source_prompt.pick(clips.firsts)
    condition = clips.condition if clips.condition is None else pick(clips.condition, clips.firsts)
    alone = branches.forward([latents], [prompt], timestep, [condition])[0]
    return pick(alone, clips.source_of)


def shift_latents(latents: Tensor, noise: Tensor, foreground: Tensor, beta: float) -> Tensor:
    """`latents` inside the mask drawn towards the statistics of fresh noise there: AdaIN, with weight beta.

    Mean and (biased) deviation per clip and channel over the foreground (ProEdit, latents-shift, arXiv 2512.22118).
    """
    inside = foreground[:, None].to(latents.dtype)
    mean, std = _statistics(latents, inside)
    noise_mean, noise_std = _statistics(noise, inside)
    shifted = noise_std * (latents - mean) / std + noise_mean
    return torch.where(foreground[:, None], beta * shifted + (1 - beta) * latents, latents)


def _statistics(latents: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    dims, count = (2, 3, 4), inside.sum(dim=(2, 3, 4), keepdim=True)
    mean = (latents * inside).sum(dim=dims, keepdim=True) / count
    variance = ((latents - mean).square() * inside).sum(dim=dims, keepdim=True) / count
    return mean, (variance + 1e-5).sqrt()
