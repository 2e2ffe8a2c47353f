"""A clip of any size through the core and back, in memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvlock.backbones.calibration import model_defaults
from kvlock.backbones.checkpoints import family_of
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, EditResult, StepRecord, check_request
from kvlock.core.clips import prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.media.fit import Fit, fit_mask, fit_to_model, fit_video, unfit_video
from kvlock.methods.catalogue import CALIBRATED, method_config
from kvlock.methods.edit import DEFAULT, decode, denoise
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig
from kvlock.metrics.background import psnr_background, ssim_background

OnSteps = Callable[[list[StepRecord]], None]


def default_config(model: str, method: str = "", **options) -> MethodConfig:
    """The config of a method on a model: the model's own defaults, the method's, then `options`.

    Without `method`, the model family's default. Raises ValueError for an unknown model, method or
    option, or a value out of its range.
    """
    family = family_of(model)
    method = method or family.default_method
    return method_config(method, model_defaults(model, method in CALIBRATED), options)


def fit_of(
    backbone: Backbone,
    size: tuple[int, int, int],
    area: tuple[int, int] | None,
    max_frames: int | None,
) -> Fit:
    """How a clip of `size` (frames, height, width) is brought to what the model needs.

    `area` (height, width) gives the area to scale to; None keeps the clip's own.
    """
    (stride, *strides), (_, *patches) = backbone.vae_stride, backbone.patch_size
    multiple = (strides[0] * patches[0], strides[1] * patches[1])
    fit = fit_to_model(size, multiple, stride, area[0] * area[1] if area else None, max_frames)
    longest = backbone.max_tokens_per_axis * min(multiple)
    if max(fit.model[1:]) > longest:
        raise ValueError(
            f"the clip would be {fit.model[2]}x{fit.model[1]} for the model, whose sides end at "
            f"{longest}; scale it to a smaller size"
        )
    return fit


def clip_size(video: Tensor) -> tuple[int, int, int]:
    """(frames, height, width) of uint8 [F, H, W, 3]."""
    frames, height, width, _ = video.shape
    return frames, height, width


def edit(
    backbone: Backbone,
    request: EditRequest,
    config: MethodConfig,
    fit: Fit | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    execution: Execution = DEFAULT,
) -> EditResult:
    """Edit one clip of any size; the result has the clip's own size and frame count.

    Without `fit` the clip's size is kept, rounded to the model's multiples, and its frames are
    padded to the VAE's rhythm; both are undone. Raises ValueError for an unsuitable request,
    NonFiniteError if the model breaks down.
    """
    first = (lambda records: on_step(records[0])) if on_step else None
    return edit_variants(backbone, [request], config, fit, first, execution)[0]


def edit_variants(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    fit: Fit | None = None,
    on_step: OnSteps | None = None,
    execution: Execution = DEFAULT,
) -> list[EditResult]:
    """The same for several edits of one clip and mask, which share what is computed of the source.

    They share it where they have the same `source_prompt` and `background_seed`; FlowEdit makes one
    after the other.
    """
    for request in requests:
        check_request(request)
    fit = fit or fit_of(backbone, clip_size(requests[0].video), None, None)
    denoised = denoise_fitted(backbone, fitted(requests, fit), config, on_step, execution)
    return decode_fitted(backbone, denoised, fit)


def fitted(requests: list[EditRequest], fit: Fit) -> list[EditRequest]:
    """Requests of one clip and mask at the model's size, with one copy of both.

    Raises ValueError where they are not of one clip.
    """
    first = requests[0]
    if any(r.video is not first.video or r.mask is not first.mask for r in requests):
        raise ValueError(
            "variants are edits of one clip; give all requests the same video and mask"
        )
    video, mask = fit_video(first.video, fit), fit_mask(first.mask, fit)
    return [replace(r, video=video, mask=mask) for r in requests]


@dataclass(frozen=True)
class Denoised:
    """Edits of one clip before they are decoded: latents [B, C, F, H, W], one trace each.

    source: the clip's own latents, [1, C, F, H, W].
    """

    edits: Tensor
    source: Tensor
    traces: tuple[tuple[StepRecord, ...], ...]


@torch.no_grad()
def denoise_fitted(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    on_step: OnSteps | None = None,
    execution: Execution = DEFAULT,
) -> Denoised:
    """Edits of one clip that is fitted already.

    The source is encoded once, except by FlowEdit, whose edits are made one after the other.
    """
    together = isinstance(config, KVLockConfig)
    groups = [requests] if together else [[request] for request in requests]
    latents, traces, source = [], [], None
    for group in groups:
        clips = prepare_clips(backbone, group)
        edits, found = denoise(backbone, clips, config, execution, on_step)
        latents.append(edits)
        traces += found
        source = clips.source[:1] if source is None else source
    assert source is not None
    return Denoised(torch.cat(latents), source, tuple(traces))


def decode_fitted(backbone: Backbone, denoised: Denoised, fit: Fit) -> list[EditResult]:
    """What was denoised as clips of their own size."""
    results = decode(backbone, denoised.edits, list(denoised.traces))
    return [replace(r, video=unfit_video(r.video, fit)) for r in results]


@dataclass(frozen=True)
class BackgroundReport:
    """How well the background was kept, beside the source resized and through the model's VAE.

    That is the best that an edit without the source's own pixels could do.
    """

    psnr: float
    ssim: float
    psnr_ceiling: float
    ssim_ceiling: float

    def __str__(self) -> str:
        return (
            f"background: PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f} (the source through resize "
            f"and VAE: {self.psnr_ceiling:.2f} dB, {self.ssim_ceiling:.4f})"
        )


def background_reports(
    source: Tensor, mask: Tensor, edited: list[Tensor], ceiling: Tensor
) -> list[BackgroundReport]:
    """Of edits against the source, uint8 [F, H, W, 3] each; ceiling: the source through the VAE."""
    best = psnr_background(source, ceiling, mask), ssim_background(source, ceiling, mask)
    return [
        BackgroundReport(psnr_background(source, x, mask), ssim_background(source, x, mask), *best)
        for x in edited
    ]
