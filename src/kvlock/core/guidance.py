"""Guidance: from the branches' predictions, [B, C, F, H, W] each, to one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.config import KVLockConfig
from kvlock.core.protocols import Sampler
from kvlock.core.types import Step


@dataclass(frozen=True)
class Guided:
    """The guided prediction, s* [B] where it is used, and what a projection carries on."""

    prediction: Tensor
    scale: Tensor | None = None
    carried: Tensor | None = None


def combine(
    config: KVLockConfig,
    step: Step,
    predictions: list[Tensor],
    omega: Tensor,
    latents: Tensor,
    sampler: Sampler,
    carried: Tensor | None,
) -> Guided:
    """The predictions of a step's branches, conditional first, with omega [B]."""
    guidance, k = config.guidance, step.index
    if k < config.count(guidance.zero_init_steps):
        return Guided(torch.zeros_like(latents))
    if len(predictions) == 1:
        return Guided(predictions[0])
    conditional, unconditional = predictions
    if guidance.projection and k >= config.first_lock_step:
        clean = [sampler.denoised(latents, prediction, k) for prediction in predictions]
        denoised, carried = guidance.projection.combine(*clean, omega, carried)
        return Guided(sampler.prediction_for(latents, denoised, k), carried=carried)
    if not guidance.unconditional_scale:
        return Guided(guide(conditional, unconditional, omega, torch.ones_like(omega)))
    scale = optimal_scale(conditional, unconditional)
    return Guided(guide(conditional, unconditional, omega, scale), scale)


def optimal_scale(conditional: Tensor, unconditional: Tensor) -> Tensor:
    """s* = <v_cond, v_uncond> / (||v_uncond||^2 + 1e-8), per clip over all elements, float32 [B].

    CFG-Zero*, arXiv 2503.18886; KV-Lock, guidance.
    """
    cond, uncond = conditional.float().flatten(1), unconditional.float().flatten(1)
    return (cond * uncond).sum(1) / (uncond.square().sum(1) + 1e-8)


def guide(
    conditional: Tensor, unconditional: Tensor, guidance_scale: Tensor, unconditional_scale: Tensor
) -> Tensor:
    """(1 - omega) * s * v_uncond + omega * v_cond, with omega and s [B]; s = 1 is plain CFG.

    Written as s v_uncond + omega (v_cond - s v_uncond), so that s = 1 is diffusers' to the bit.
    """
    omega, s = (x.view(-1, 1, 1, 1, 1) for x in (guidance_scale, unconditional_scale))
    base = s * unconditional
    return base + omega * (conditional - base)
