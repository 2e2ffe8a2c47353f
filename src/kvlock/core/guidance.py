"""Guidance: pure functions of two predictions, [B, C, F, H, W] each."""

import torch
from torch import Tensor

APG_MOMENTUM = -0.5
APG_PARALLEL = 0.0
APG_NORM = 15 / 65536**0.5  # r = 15 at SDXL's 65,536 elements; a norm grows with the square root of their number


def optimal_scale(conditional: Tensor, unconditional: Tensor) -> Tensor:
    """s* = <v_cond, v_uncond> / (||v_uncond||^2 + 1e-8), per clip over all elements, float32 [B].

    CFG-Zero*, arXiv 2503.18886; KV-Lock, guidance.
    """
    cond, uncond = conditional.float().flatten(1), unconditional.float().flatten(1)
    return (cond * uncond).sum(1) / (uncond.square().sum(1) + 1e-8)


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: Tensor, unconditional_scale: Tensor) -> Tensor:
    """(1 - omega) * s * v_uncond + omega * v_cond, with omega and s [B]; s = 1 is plain classifier-free guidance.

    Written as s v_uncond + omega (v_cond - s v_uncond), so that s = 1 is what diffusers computes to the bit.
    """
    omega, s = (x.view(-1, 1, 1, 1, 1) for x in (guidance_scale, unconditional_scale))
    base = s * unconditional
    return base + omega * (conditional - base)


def project(
    conditional: Tensor, unconditional: Tensor, guidance_scale: Tensor, average: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Adaptive projected guidance (arXiv 2410.02416) of *denoised* predictions; returns the result and its momentum.

    The difference of the two, with a running average (momentum -0.5) and its norm capped, loses its part parallel to
    the conditional prediction: D = D_cond + (omega - 1) (orthogonal + 0 * parallel). `average` is what the last step
    returned, None at the first.
    """
    difference = conditional - unconditional
    average = difference if average is None else difference + APG_MOMENTUM * average
    cap = APG_NORM * average[0].numel() ** 0.5
    norm = torch.linalg.vector_norm(average.flatten(1), dim=1).view(-1, 1, 1, 1, 1)
    update = average * (cap / norm.clamp(min=1e-8)).clamp(max=1.0)
    share = (update * conditional).flatten(1).sum(1) / conditional.square().flatten(1).sum(1).clamp(min=1e-8)
    parallel = share.view(-1, 1, 1, 1, 1) * conditional
    omega = guidance_scale.view(-1, 1, 1, 1, 1)
    return conditional + (omega - 1) * (update - parallel + APG_PARALLEL * parallel), average
