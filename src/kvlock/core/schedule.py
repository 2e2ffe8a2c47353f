"""Variance -> Control (KV-Lock, dynamic schedules)."""

from torch import Tensor

from kvlock.core.config import KVLockConfig
from kvlock.core.types import Control


def control_at(config: KVLockConfig, step: int, variance: Tensor | None, like: Tensor) -> Control:
    """What to do at `step`, from the variance [B] of the steps before it.

    alpha = clamp(variance / tau, 0, 1), omega = omega_0 * clamp(variance / tau, floor, boost) in the last kappa steps;
    before them, and while there is no variance yet, alpha = 0 and omega = omega_0. A constant `fusion_ratio` needs no
    variance; with omega_0 = 1 guidance is off and stays off. `like` is any tensor [B] of the run's device and dtype.
    """
    fusion_ratio = like.new_zeros(like.shape)
    guidance_scale = like.new_full(like.shape, config.guidance_scale)
    if step < config.first_lock_step:
        return Control(fusion_ratio, guidance_scale)
    if config.fusion_ratio != "variance":
        fusion_ratio = like.new_full(like.shape, config.fusion_ratio)
    elif variance is not None:
        fusion_ratio = (variance / config.threshold).clamp(0, 1)
    if config.adaptive_guidance and config.guidance_scale > 1 and variance is not None:
        guidance_scale = config.guidance_scale * (variance / config.threshold).clamp(
            config.guidance_floor, config.guidance_boost
        )
    return Control(fusion_ratio, guidance_scale)


def may_lock(config: KVLockConfig, step: int) -> bool:
    """Whether alpha can be above 0 at `step`, so that the source must be run; known without looking at the device."""
    return step >= config.first_lock_step and config.fusion_ratio != 0
