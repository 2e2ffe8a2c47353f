"""Adaptive projected guidance (arXiv 2410.02416) of clean predictions."""

import torch
from torch import Tensor

from kvlock.core.guidance import within
from kvlock.methods.parts import APG

NORM = 15 / 65536**0.5  # r = 15 at SDXL's 65,536 elements; a norm grows with their square root


def project(
    conditional: Tensor,
    unconditional: Tensor,
    guidance_scale: Tensor,
    average: Tensor | None,
    apg: APG,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The guided clean prediction [B, C, F, H, W] and the running average for the next step.

    The difference of the two, with a running average and its norm capped, loses its part parallel
    to the conditional prediction: D = D_cond + (omega - 1) (orthogonal + eta * parallel), omega
    [B]. `average` is what the last step gave, None at the first. Only what is kept, bool
    [B, F, H, W], counts: elsewhere the two are alike or thrown away, and projecting onto them too
    would leave part of the parallel in. The cap grows with the number of elements that count.
    """
    difference = within(conditional - unconditional, kept)
    average = difference if average is None else difference + apg.apg_momentum * average
    cap = NORM * _elements(average, kept) ** 0.5
    norm = torch.linalg.vector_norm(average.flatten(1), dim=1).view(-1, 1, 1, 1, 1)
    update = average * (cap / norm.clamp(min=1e-8)).clamp(max=1.0)
    conditional, whole = within(conditional, kept), conditional
    energy = conditional.square().flatten(1).sum(1).clamp(min=1e-8)
    share = (update * conditional).flatten(1).sum(1) / energy
    parallel = share.view(-1, 1, 1, 1, 1) * conditional
    omega = guidance_scale.view(-1, 1, 1, 1, 1)
    return whole + (omega - 1) * (update - parallel + apg.apg_parallel * parallel), average


def _elements(tensor: Tensor, kept: Tensor | None) -> Tensor | int:
    """How many elements of each clip count, [B, 1, 1, 1, 1]."""
    if kept is None:
        return tensor[0].numel()
    return (kept.sum(dim=(1, 2, 3)) * tensor.shape[1]).to(tensor).view(-1, 1, 1, 1, 1)
