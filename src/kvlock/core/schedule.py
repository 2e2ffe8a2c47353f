"""The plan of the steps, and variance -> Control (KV-Lock, dynamic schedules)."""

from collections.abc import Sequence

from torch import Tensor

from kvlock.contract.types import Control, Measured, Step
from kvlock.core.config import AdaptiveGuidance, KVLockConfig


def plan_steps(
    config: KVLockConfig, sigmas: Sequence[float], switch: int | None = None
) -> list[Step]:
    """Every step of an edit: which forwards it makes, known before the first one.

    sigmas: noise levels before each of N steps, and the last. switch: a second expert's first step.
    """
    low, high = config.guidance.guidance_interval
    steps = []
    for k in range(config.first_step, config.num_inference_steps):
        expert = int(switch is not None and k >= switch)
        guided = config.guidance.scale(expert) > 1 and low <= sigmas[k] <= high
        steps.append(Step(k, guided, may_lock(config, k), dropped=False, expert=expert))
    return config.drop.plan(steps, config) if config.drop else steps


def may_lock(config: KVLockConfig, step: int) -> bool:
    """Whether the source can matter at `step`, so that its branch is run."""
    if config.lock is None or step < config.first_lock_step:
        return False
    injection = config.lock.injection
    return injection is None or injection.weight(step, config) > 0


def control_at(
    config: KVLockConfig, step: Step, measured: Measured | None, like: Tensor
) -> Control:
    """alpha and omega of a step, from the variance [B] of the predictions before it.

    In the last kappa steps alpha = clamp(variance / tau, 0, 1) and omega = omega_0 *
    clamp(variance / tau, floor, boost); before them, and while there is no variance yet, alpha = 0
    and omega = omega_0. `like` is any tensor [B] of the run's device and dtype.
    Not the paper's: constants, which need no variance; alpha = 1 in a step that drops the
    background; omega = 1 where there is no guidance; an alpha for every token.
    """
    ratio, omega = like.new_zeros(like.shape), like.new_ones(like.shape)
    if step.dropped:
        ratio = like.new_ones(like.shape)
    elif step.source:
        ratio = _fusion_ratio(config, step.index, measured, ratio)
    if step.guided:
        omega = config.guidance.scale(step.expert) * omega
        if step.index >= config.first_lock_step:
            omega = _guidance_scale(config, measured, omega)
    return Control(ratio, omega)


def _fusion_ratio(
    config: KVLockConfig, step: int, measured: Measured | None, zero: Tensor
) -> Tensor:
    assert config.lock
    ratio, injection = config.lock.fusion_ratio, config.lock.injection
    weight = injection.weight(step, config) if injection else 1.0
    if ratio != "variance":
        return zero + weight * ratio
    if measured is None:
        return zero
    risk = measured.variance if measured.nearby is None else measured.nearby
    alpha = (risk / config.signal.threshold).clamp(0, 1) * weight
    return alpha if measured.nearness is None else alpha * measured.nearness


def _guidance_scale(config: KVLockConfig, measured: Measured | None, omega: Tensor) -> Tensor:
    adaptive = config.guidance.adaptive
    if adaptive is None:
        return config.guidance.lock_guidance * omega
    if measured is None:
        return omega
    ratio = _response(adaptive, measured.variance / config.signal.threshold)
    return (omega * ratio).clamp(min=adaptive.guidance_minimum)


def _response(adaptive: AdaptiveGuidance, risk: Tensor) -> Tensor:
    """omega / omega_0; lowered by risk where the response is not the paper's."""
    ratio = risk if adaptive.guidance_response == "raise" else 1 / risk
    return ratio.clamp(adaptive.guidance_floor, adaptive.guidance_boost)
