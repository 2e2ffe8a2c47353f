"""The source at every noise level, and the start inside the mask, as methods with an inversion have them."""

import torch
from torch import Tensor

from kvlock.core.branches import Branches
from kvlock.core.protocols import Sampler


def inverted_path(branches: Branches, sampler: Sampler, source: Tensor, steps: int) -> list[Tensor]:
    """Latents of the source at the start of each of `steps` steps and, last, the source itself.

    Uni-Inv (UniEdit-Flow, arXiv 2504.13109): walk from clean to noise; predict the next point with the velocity at
    hand, evaluate the velocity there, and make the step from the stored point with that one. Source prompt, no
    guidance; steps + 1 forwards.
    """
    path, latents = [source], source
    velocity = branches.source_alone(source, sampler.timestep(steps))
    for step in reversed(range(steps)):
        reach = sampler.sigmas[step] - sampler.sigmas[step + 1]
        velocity = branches.source_alone(latents + reach * velocity, sampler.timestep(step))
        latents = latents + reach * velocity
        path.append(latents)
    return path[::-1]


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
