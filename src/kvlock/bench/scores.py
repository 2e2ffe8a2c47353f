"""The metrics of one edited clip, each under the name of its reading."""

import math
from dataclasses import dataclass

from torch import Tensor

from kvlock.media.composite import composite
from kvlock.methods.catalogue import COMPOSITE
from kvlock.metrics.background import (
    flicker_background,
    psnr_background,
    psnr_background_multiplied,
    psnr_frame,
    psnr_ring,
    ssim_background,
)
from kvlock.metrics.flow import warp_errors
from kvlock.metrics.foreground import psnr_inside, ssim_inside
from kvlock.shapes.answers import NOTHING, nearest_mode, outline_change, wanted_mode
from kvlock.shapes.scene import random_edit


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. `better` is +1 where more is better, -1 where less is, 0 where neither
    is.
    """

    name: str
    label: str
    better: int
    digits: int = 2

    @property
    def heading(self) -> str:
        """The label with an arrow to the better side."""
        return f"{self.label} {self.arrow}".strip()

    @property
    def arrow(self) -> str:
        """Up where more is better, down where less is."""
        return {1: "↑", -1: "↓", 0: ""}[self.better]


BY_NETWORKS = (
    Metric("lpips_background", "LPIPS background", -1, 4),
    Metric("clip_text", "CLIP text", 1),
    Metric("clip_text_region", "CLIP text, region", 1),
    Metric("subject_consistency", "subject consistency", 1, 4),
    Metric("background_consistency", "background consistency", 1, 4),
    Metric("motion_smoothness", "motion smoothness", 1, 4),
    Metric("aesthetic_quality", "aesthetic quality", 1, 4),
    Metric("imaging_quality", "imaging quality", 1, 4),
    Metric("vbench_mean", "VBench, mean of five", 1, 4),
)
METRICS = (
    Metric("psnr_background", "PSNR background, dB", 1),
    Metric("ssim_background", "SSIM background", 1, 4),
    Metric("psnr_ring", "PSNR ring, dB", 1),
    Metric("flicker_background", "flicker, grey levels", -1),
    Metric("psnr_background_multiplied", "PSNR background multiplied, dB", 1),
    Metric("psnr_frame", "PSNR frame to source, dB", 0),
    Metric("warp_error", "warp error, 1e-3", -1),
    Metric("warp_error_added", "warp error over the source's, 1e-3", -1),
    Metric("psnr_inside", "PSNR inside to truth, dB", 1),
    Metric("ssim_inside", "SSIM inside to truth", 1, 4),
    Metric("right_colour", "right colour", 1, 3),
    Metric("right_shape", "right shape", 1, 3),
    Metric("right_edit", "right edit", 1, 3),
    Metric("mode_distance", "distance to nearest mode", -1, 1),
    Metric("temporal", "outline's change over the truth's", -1),
    Metric("mode_consistency", "mode consistency", 1, 3),
    Metric("hallucinated", "hallucinated", -1, 3),
    *BY_NETWORKS,
)

IMAGING = "imaging_quality"
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "aesthetic_quality",
    IMAGING,
)  # the five of VBench that KV-Lock reports, raw


@dataclass(frozen=True)
class Reference:
    """What an edit is compared with: uint8 [F, H, W, 3] each, mask bool [F, H, W]; `truth` and
    `scene` where known.
    """

    source: Tensor
    mask: Tensor
    truth: Tensor | None = None
    scene: int | None = None


def with_composite(edited: Tensor, known: Reference) -> dict[str, Tensor]:
    """The edit, uint8 [F, H, W, 3], and the same with the source's pixels outside the mask: by
    their rows' suffix.
    """
    return {"": edited, COMPOSITE: composite(known.source, edited, known.mask)}


def score(edited: Tensor, known: Reference) -> dict[str, float]:
    """Every metric that can be measured of an edited clip; one that cannot is left out, never 0."""
    source, mask = known.source, known.mask
    warped, own = warp_errors(source, edited)
    values = {
        "psnr_background": psnr_background(source, edited, mask),
        "ssim_background": ssim_background(source, edited, mask),
        "psnr_ring": psnr_ring(source, edited, mask),
        "flicker_background": flicker_background(source, edited, mask),
        "psnr_background_multiplied": psnr_background_multiplied(source, edited, mask),
        "psnr_frame": psnr_frame(source, edited),
        "warp_error": 1000 * warped,
        "warp_error_added": 1000 * (warped - own),
    }
    if known.truth is not None:
        values["psnr_inside"] = psnr_inside(known.truth, edited, mask)
        values["ssim_inside"] = ssim_inside(known.truth, edited, mask)
    if known.scene is not None:
        values |= _mode_scores(edited, known.scene)
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def _mode_scores(edited: Tensor, scene: int) -> dict[str, float]:
    """Colour, shape and outline only for edits that leave an object; `right_edit` for every kind."""
    found, wanted = nearest_mode(edited, scene), wanted_mode(random_edit(scene))
    values = {
        "right_edit": float(found.mode == wanted),
        "mode_distance": found.distance,
        "mode_consistency": found.consistency,
    }
    if wanted != NOTHING:
        values["right_shape"] = float(found.mode[0] == wanted[0])
        values["right_colour"] = float(found.mode[1] == wanted[1])
        change = outline_change(edited, scene)
        values |= {} if change is None else {"temporal": change}
    return values
