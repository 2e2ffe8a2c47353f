"""A clip of any size through the core and back: what `kvlock.edit` and the command line both call."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from kvlock.backbones.calibration import model_defaults
from kvlock.backbones.known_models import family_of
from kvlock.core import edit as kv_lock
from kvlock.core.clips import check_request
from kvlock.core.config import KVLockConfig
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest, EditResult, StepRecord
from kvlock.media.fit import Fit, fit_mask, fit_to_model, fit_video, unfit_video
from kvlock.methods import flowedit
from kvlock.methods.table import CALIBRATED, DEFAULT_METHODS, MethodConfig, method_config
from kvlock.metrics.background import psnr_background, ssim_background


@dataclass(frozen=True)
class BackgroundReport:
    """How well the background was kept, beside the best that the model's VAE can do (the source through it)."""

    psnr: float
    ssim: float
    psnr_ceiling: float
    ssim_ceiling: float

    def __str__(self) -> str:
        return (
            f"background: PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f} "
            f"(VAE alone: {self.psnr_ceiling:.2f} dB, {self.ssim_ceiling:.4f})"
        )


def default_config(model: str, method: str = "auto", **overrides) -> MethodConfig:
    """The config of a method on a model: the model's own defaults, then the method's fields, then `overrides`.

    "auto" is the model family's default. Raises ValueError for an unknown method, field, or a value out of its range.
    """
    if method == "auto":
        method = DEFAULT_METHODS[family_of(model)]
    return method_config(method, model_defaults(model, method in CALIBRATED), overrides)


def fit_of(backbone: Backbone, request: EditRequest, size: tuple[int, int] | None, max_frames: int | None) -> Fit:
    """How a clip is brought to the size the model needs; `size` (height, width) gives the area to scale to."""
    (stride, *strides), (_, *patches) = backbone.vae_stride, backbone.patch_size
    multiple = (strides[0] * patches[0], strides[1] * patches[1])
    frames, height, width, _ = request.video.shape
    area = size[0] * size[1] if size else None
    fit = fit_to_model((frames, height, width), multiple, stride, area, max_frames)
    longest = backbone.max_tokens_per_axis * min(multiple)
    if max(fit.model[1:]) > longest:
        raise ValueError(
            f"the clip would be {fit.model[2]}x{fit.model[1]} for the model, whose sides end at {longest}"
        )
    return fit


def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    on_step: Callable[[list[StepRecord]], None] | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together by the method that `config` belongs to."""
    if isinstance(config, KVLockConfig):
        return kv_lock.edit_clips(backbone, requests, config, on_step)
    return flowedit.edit_clips(backbone, requests, config, on_step)


def edit(
    backbone: Backbone,
    request: EditRequest,
    config: MethodConfig,
    fit: Fit | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> EditResult:
    """Edit one clip of any size; the result has the clip's own size and frame count.

    Without `fit` the clip's size is kept, rounded to the model's multiples, and its frames are padded to the VAE's
    rhythm; both are undone. Raises ValueError for an unsuitable request, NonFiniteError if the model breaks down.
    """
    told = (lambda records: on_step(records[0])) if on_step else None
    return edit_variants(backbone, [request], config, fit, told)[0]


def edit_variants(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    fit: Fit | None = None,
    on_step: Callable[[list[StepRecord]], None] | None = None,
) -> list[EditResult]:
    """The same for several edits of one clip and mask, which share what is computed of the source.

    They share it where they have the same `source_prompt` and `background_seed`; FlowEdit makes one after the other.
    """
    for request in requests:
        check_request(request)
    first = requests[0]
    if any(r.video is not first.video or r.mask is not first.mask for r in requests):
        raise ValueError("variants are edits of one clip; give all requests the same video and mask")
    fit = fit or fit_of(backbone, first, None, None)
    video, mask = fit_video(first.video.numpy(), fit), fit_mask(first.mask.numpy(), fit)
    fitted = [replace(r, video=video, mask=mask) for r in requests]
    together = isinstance(config, KVLockConfig)  # FlowEdit's source has each edit's own noise, so nothing is shared
    batches = [fitted] if together else [[request] for request in fitted]
    results = [result for batch in batches for result in edit_clips(backbone, batch, config, on_step)]
    return [replace(result, video=torch.from_numpy(unfit_video(result.video, fit))) for result in results]


@torch.no_grad()
def background_report(backbone: Backbone, request: EditRequest, edited: np.ndarray, fit: Fit) -> BackgroundReport:
    """Compare the edit's background, and that of the source sent through the VAE, with the source, at its own size."""
    source, mask = request.video.numpy(), request.mask.numpy()
    coded = backbone.decode_video(backbone.encode_video(fit_video(source, fit)[None]))[0]
    ceiling = unfit_video(coded, fit)
    return BackgroundReport(
        psnr_background(source, edited, mask),
        ssim_background(source, edited, mask),
        psnr_background(source, ceiling, mask),
        ssim_background(source, ceiling, mask),
    )
