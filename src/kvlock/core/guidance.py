"""Guidance: pure functions of two predictions, [B, C, F, H, W] each."""

from torch import Tensor


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
