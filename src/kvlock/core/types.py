"""The records that travel through an edit."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EditRequest:
    """One edit of one clip.

    video: uint8 [F, H, W, 3]. mask: bool [F, H, W], True where the edit may happen.
    `source_prompt` describes the source; without it the source branch gets the empty prompt.
    `background_seed` draws the noise outside the mask, `seed` that inside and, where it is None, all of it. Requests
    of one clip, mask, source prompt and background seed share what is computed of the source.
    """

    video: Tensor
    mask: Tensor
    prompt: str
    source_prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    background_seed: int | None = None


@dataclass(frozen=True)
class Control:
    """What a schedule decides for one step, per clip: both [B], or alpha [B, L] for every token."""

    fusion_ratio: Tensor
    guidance_scale: Tensor


@dataclass(frozen=True)
class StepRecord:
    """What one step did to one clip; `variance` and `unconditional_scale` are None where there was none.

    `variance` is in multiples of what is usual where the config says what that is; `fusion_ratio` is the mean over the
    background where tokens have their own.
    """

    step: int
    sigma: float
    variance: float | None
    fusion_ratio: float
    guidance_scale: float
    unconditional_scale: float | None


@dataclass(frozen=True)
class StepTensors:
    """What one step saw, for those who study it; [B, C, F, H, W] each.

    `denoised` is the guided prediction of the clean clip; the conditional's and, where guidance is on, the
    unconditional's own stand in `branches`.
    """

    step: int
    denoised: Tensor
    branches: tuple[Tensor, ...]


@dataclass(frozen=True)
class EditResult:
    """video: uint8 [F, H, W, 3]; trace: one record a step."""

    video: Tensor
    trace: tuple[StepRecord, ...]
