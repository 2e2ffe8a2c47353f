"""Variance -> Control (KV-Lock, dynamic schedules), and the schedules that look at the step alone."""

import math
from typing import NamedTuple

from torch import Tensor

from kvlock.core.config import KVLockConfig
from kvlock.core.types import Control

FADED = 0.05  # AdaEdit injects nothing at or below this weight


class StepKind(NamedTuple):
    """Which forwards a step makes; steps of one kind cost the same."""

    guided: bool
    dropped: bool
    with_source: bool


def control_at(
    config: KVLockConfig,
    step: int,
    variance: Tensor | None,
    like: Tensor,
    nearby: tuple[Tensor, Tensor] | None = None,
) -> Control:
    """What to do at `step`, from the variance [B] of the steps before it.

    alpha = clamp(variance / tau, 0, 1), omega = omega_0 * clamp(variance / tau, floor, boost) in the last kappa steps;
    before them, and while there is no variance yet, alpha = 0 and omega = omega_0. A constant or fading
    `fusion_ratio` needs no variance; with omega_0 = 1 guidance is off and stays off. `like` is any tensor [B] of the
    run's device and dtype. Not the paper's: tau / variance where the response is to lower omega; `nearby`, variance
    and nearness [B, L], which gives each token its own alpha, clamp(variance / tau, 0, 1) * nearness.
    """
    fusion_ratio = like.new_zeros(like.shape)
    guidance_scale = like.new_full(like.shape, config.guidance_scale)
    if step < config.first_lock_step:
        return Control(fusion_ratio, guidance_scale)
    if config.fusion_ratio == "variance":
        if variance is not None and may_lock(config, step):
            fusion_ratio = (variance / config.threshold).clamp(0, 1)
            if nearby is not None:
                fusion_ratio = (nearby[0] / config.threshold).clamp(0, 1) * nearby[1]
    else:
        fusion_ratio = like.new_full(like.shape, constant_ratio(config, step))
    if config.adaptive_guidance and config.guidance_scale > 1 and variance is not None:
        risk = variance / config.threshold
        ratio = risk if config.guidance_response == "raise" else 1 / risk
        ratio = ratio.clamp(config.guidance_floor, config.guidance_boost)
        guidance_scale = (config.guidance_scale * ratio).clamp(min=config.guidance_minimum)
    return Control(fusion_ratio, guidance_scale)


def constant_ratio(config: KVLockConfig, step: int) -> float:
    """alpha of a schedule that does not look at the variance."""
    inject = config.count(config.inject_steps)
    if isinstance(config.fusion_ratio, str):
        return fading_ratio(config.fusion_ratio, step, inject)
    return config.fusion_ratio if step < inject else 0.0


def fading_ratio(kind: str, step: int, inject_steps: int) -> float:
    """AdaEdit's progressive injection: from 1 towards 0 over `inject_steps`, by its code, where r = k / (T_inj - 1).

    sigmoid: 1 / (1 + exp(5 (r - 0.7))), which fades on beyond T_inj; cosine: (1 + cos(pi r)) / 2; linear: 1 - r.
    Weights of 0.05 and less are nothing.
    """
    if inject_steps == 0:
        return 0.0
    r = step / max(inject_steps - 1, 1)
    if kind == "sigmoid":
        weight = 1 / (1 + math.exp(min(5 * (r - 0.7), 700.0)))
    elif kind == "cosine":
        weight = 0.5 * (1 + math.cos(math.pi * min(r, 1.0)))
    else:
        weight = 1 - r
    return weight if weight > FADED else 0.0


def may_lock(config: KVLockConfig, step: int) -> bool:
    """Whether the source can matter at `step`, so that it must be run; known without looking at the device."""
    if step < config.first_lock_step:
        return False
    if config.fusion_ratio == "variance":
        return step < config.count(config.inject_steps)
    inside = config.foreground_ratio > 0 and step < config.count(config.inject_steps)
    return constant_ratio(config, step) > 0 or inside


def drops(config: KVLockConfig, step: int) -> bool:
    """Whether the edit's background is left out at `step` and the source stands in for it."""
    return config.drop_background == "all" or (config.drop_background == "locked" and may_lock(config, step))


def refreshes(config: KVLockConfig, step: int) -> bool:
    """Whether the source is run at `step`, one of those that drop the background."""
    earlier = sum(drops(config, before) for before in range(config.first_step, step))
    return earlier % config.refresh_steps == 0


def guides(config: KVLockConfig, sigma: float) -> bool:
    """Whether there is guidance, and so an unconditional forward, at a noise level."""
    low, high = config.guidance_interval
    return config.guidance_scale > 1 and low <= sigma <= high


def step_kind(config: KVLockConfig, step: int, sigma: float) -> StepKind:
    """The kind of `step`, which begins at noise level `sigma`."""
    dropped = drops(config, step)
    with_source = refreshes(config, step) if dropped else may_lock(config, step)
    return StepKind(guides(config, sigma), dropped, with_source)
