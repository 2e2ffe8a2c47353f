"""What could show a hallucinated edit while it is made: the paper's variance and its rivals, per
step and clip.

All are means over the mask's latents (`foreground`), of predictions of the clean clip, [B]; None
while there are too few predictions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.variance import windowed_variance

WINDOWS = (3, 5, 10)
LONGEST = max(WINDOWS)


@dataclass(frozen=True)
class History:
    """The last predictions, oldest first: guided, conditional branch, source branch."""

    guided: tuple[Tensor, ...] = ()
    conditional: tuple[Tensor, ...] = ()
    source: tuple[Tensor, ...] = ()

    def after(self, guided: Tensor, conditional: Tensor, source: Tensor) -> "History":
        """With the predictions of one more step."""
        return History(
            (*self.guided, guided)[-LONGEST:],
            (*self.conditional, conditional)[-LONGEST:],
            (*self.source, source)[-LONGEST:],
        )


def signals(
    history: History, unconditional: Tensor, clean_source: Tensor, foreground: Tensor
) -> dict[str, Tensor | None]:
    """Every signal after a step; `unconditional` is that branch's prediction, `clean_source` the
    known latents.
    """
    everywhere = torch.ones_like(foreground)
    found: dict[str, Tensor | None] = {}
    for window in WINDOWS:
        found[f"variance, window {window}"] = windowed_variance(
            history.guided[-window:], foreground
        )
        found[f"variance of the conditional, window {window}"] = windowed_variance(
            history.conditional[-window:], foreground
        )
    local = found[f"variance, window {LONGEST}"]
    source = windowed_variance(history.source, foreground)
    found["variance, global"] = windowed_variance(history.guided, everywhere)
    found["variance / energy"] = (
        None if local is None else local / mean_square(history.guided[-1], foreground)
    )
    found["variance / the source's"] = None if local is None or source is None else local / source
    found["relative step change"] = _step_change(history.guided, foreground)
    found["error of the source branch"] = mean_square(history.source[-1] - clean_source, foreground)
    found["disagreement of the branches"] = mean_square(
        history.conditional[-1] - unconditional, foreground
    )
    return found


def across_seeds(predictions: Tensor, foreground: Tensor) -> Tensor:
    """Unbiased variance over variants [S, B, C, F, H, W] of the same edits, the mean inside the
    mask: [B].
    """
    return mean_inside(predictions.float().var(dim=0, unbiased=True), foreground)


def mean_square(tensor: Tensor, foreground: Tensor) -> Tensor:
    """The mean of squares inside the mask, per clip."""
    return mean_inside(tensor.float().square(), foreground)


def mean_inside(tensor: Tensor, foreground: Tensor) -> Tensor:
    """The mean inside the mask, per clip: [B, C, F, H, W], bool [B, F, H, W] -> [B]."""
    inside = foreground[:, None].to(tensor.dtype)
    return (tensor * inside).sum(dim=(1, 2, 3, 4)) / (
        inside.sum(dim=(1, 2, 3, 4)) * tensor.shape[1]
    )


def _step_change(predictions: tuple[Tensor, ...], foreground: Tensor) -> Tensor | None:
    """|x0_k - x0_(k-1)| / |x0_k|, as a community node pack has it in place of the variance."""
    if len(predictions) < 2:
        return None
    change = mean_square(predictions[-1] - predictions[-2], foreground)
    return (change / mean_square(predictions[-1], foreground)).sqrt()
