"""Guidance: from the branches' predictions, [B, C, F, H, W] each, to one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.contract.types import Step
from kvlock.core.branches import Branches


@dataclass(frozen=True)
class Guided:
    """The guided prediction, s* [B] where it is used, and what a projection carries on."""

    prediction: Tensor
    scale: Tensor | None = None
    carried: Tensor | None = None


def combine(
    branches: Branches,
    step: Step,
    predictions: list[Tensor],
    omega: Tensor,
    latents: Tensor,
    kept: Tensor | None,
    carried: Tensor | None,
) -> Guided:
    """The predictions of a step's branches, conditional first, with omega [B].

    kept: bool [B, F, H, W], the latents that the step decides; None is all. What replaces the
    others has no say in s* or in a projection.
    """
    config, sampler, k = branches.config, branches.sampler, step.index
    if k < config.count(config.guidance.zero_init_steps):
        return Guided(torch.zeros_like(latents))
    if len(predictions) == 1:
        return Guided(predictions[0])
    cond, uncond = predictions
    projection = config.guidance.projection
    if projection and k >= config.first_lock_step:
        cond, uncond = sampler.denoised(latents, cond, k), sampler.denoised(latents, uncond, k)
        denoised, carried = projection.combine(cond, uncond, omega, kept, carried)
        return Guided(sampler.prediction_for(latents, denoised, k), carried=carried)
    if not config.guidance.unconditional_scale:
        return Guided(guide(cond, uncond, omega, torch.ones_like(omega)))
    scale = optimal_scale(cond, uncond, kept)
    return Guided(guide(cond, uncond, omega, scale), scale)


def optimal_scale(conditional: Tensor, unconditional: Tensor, kept: Tensor | None = None) -> Tensor:
    """s* = <v_cond, v_uncond> / (||v_uncond||^2 + 1e-8), per clip over what is kept, float32 [B].

    CFG-Zero*, arXiv 2503.18886; KV-Lock, guidance.
    """
    cond, uncond = within(conditional.float(), kept), within(unconditional.float(), kept)
    cond, uncond = cond.flatten(1), uncond.flatten(1)
    return (cond * uncond).sum(1) / (uncond.square().sum(1) + 1e-8)


def within(x: Tensor, kept: Tensor | None) -> Tensor:
    """`x` [B, C, F, H, W], zero outside of what is kept, bool [B, F, H, W]; None keeps all."""
    return x if kept is None else x * kept[:, None]


def guide(
    conditional: Tensor, unconditional: Tensor, guidance_scale: Tensor, unconditional_scale: Tensor
) -> Tensor:
    """(1 - omega) * s * v_uncond + omega * v_cond, with omega and s [B]; s = 1 is plain CFG.

    Written as s v_uncond + omega (v_cond - s v_uncond), so that s = 1 is diffusers' to the bit.
    """
    omega, s = (x.view(-1, 1, 1, 1, 1) for x in (guidance_scale, unconditional_scale))
    base = s * unconditional
    return base + omega * (conditional - base)
