"""Which tokens go through the model where the background is dropped."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TokenSets:
    """Tokens of one clip, int64, ascending.

    edit: those that are computed, the foreground and a margin around it. source: those of the
    source branch. context: positions within `source` of the background that the edit's branches see.
    """

    edit: Tensor
    source: Tensor
    context: Tensor


def computed_tokens(foreground: Tensor, patch_size: tuple[int, int, int], margin: int) -> Tensor:
    """Tokens with foreground latents bool [B, F, H, W], and `margin` tokens around them in the plane:
    [B, f, h, w]."""
    tokens = F.max_pool3d(foreground.float()[:, None], patch_size)
    around = (1, 2 * margin + 1, 2 * margin + 1)
    return F.max_pool3d(tokens, around, stride=1, padding=(0, margin, margin))[:, 0] > 0


def computed_latents(computed: Tensor, patch_size: tuple[int, int, int]) -> Tensor:
    """The latents of computed tokens [B, f, h, w]: bool [B, F, H, W]."""
    for axis, patch in enumerate(patch_size, start=1):
        computed = computed.repeat_interleave(patch, dim=axis)
    return computed


def token_sets(computed: Tensor, context: float) -> TokenSets:
    """The branches' tokens for one clip: computed bool [f, h, w]; `context` is the share of the
    background that stays.

    About half of that share is what lies nearest to the computed tokens, in whole rings around
    them; what is left of it is spread evenly over the rest.
    """
    flat = computed.flatten()
    background = (~flat).nonzero()[:, 0]
    budget = round(context * len(background))
    rings = _distance(computed)[background]
    whole = int((rings.bincount().cumsum(0) <= budget // 2).sum())
    near, rest = background[rings < whole], background[rings >= whole]
    count = budget - len(near)
    # Whole numbers: they are the same on every device.
    spread = torch.arange(count, device=rest.device) * len(rest) // max(1, count)
    seen = torch.zeros_like(flat)
    seen[near] = True
    seen[rest[spread]] = True
    source = (seen | flat).nonzero()[:, 0]
    return TokenSets(flat.nonzero()[:, 0], source, seen[source].nonzero()[:, 0])


def _distance(computed: Tensor) -> Tensor:
    """Steps of a king on the picture's plane from each token to the nearest computed one of its
    frame, [L]."""
    reached, distance = computed[None], torch.zeros_like(computed, dtype=torch.int64)
    for _ in range(max(computed.shape[1:])):
        distance += ~reached[0]
        reached = F.max_pool3d(reached.float(), (1, 3, 3), stride=1, padding=(0, 1, 1)) > 0
    return distance.flatten()
