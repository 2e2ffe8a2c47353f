"""The records that travel through an edit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class EditRequest:
    """One edit of one clip.

    video: uint8 [F, H, W, 3]. mask: bool [F, H, W], True where the edit may happen.
    `source_prompt` describes the source; without it the source branch gets the empty prompt.
    fps: frames a second, where it is known; some models have it in their positions.
    `background_seed` draws the noise outside the mask, `seed` that inside and, where it is None,
    all of it. Requests of one clip, mask, source prompt and background seed share what is computed
    of the source.
    """

    video: Tensor
    mask: Tensor
    prompt: str
    source_prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    background_seed: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Prompt:
    """Prompts as a backbone encoded them, [B, ...] each part; only the backbone reads the parts."""

    parts: tuple[Tensor, ...]

    def pick(self, clips: Sequence[int]) -> "Prompt":
        """The prompts of these clips."""
        return Prompt(tuple(pick(part, clips) for part in self.parts))

    @staticmethod
    def stack(prompts: Sequence["Prompt"]) -> "Prompt":
        """One batch of several."""
        return Prompt(tuple(map(torch.cat, zip(*(prompt.parts for prompt in prompts)))))


def pick(batch: Tensor, clips: Sequence[int]) -> Tensor:
    """These clips of a batch; indexing with a list would make the host wait for the device."""
    return torch.cat([batch[clip : clip + 1] for clip in clips])


class Step(NamedTuple):
    """Which forwards a step makes; steps of one `kind` cost the same.

    guided: with an unconditional branch. source: with the source's. dropped: without the edit's
    background, for which the source stands in. expert: which of the model's two is active, 0 or 1.
    """

    index: int
    guided: bool
    source: bool
    dropped: bool
    expert: int = 0

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """All but the index and the expert, whose costs are the same."""
        return self.guided, self.source, self.dropped


@dataclass(frozen=True)
class Measured:
    """The variance [B] and, where tokens have their own alpha, that around each, [B, L].

    `nearness` [B, L] is 1 at the mask's edge and falls to 0 far from it.
    """

    variance: Tensor
    nearby: Tensor | None = None
    nearness: Tensor | None = None


@dataclass(frozen=True)
class Control:
    """What a schedule decides for one step, per clip: both [B], or alpha [B, L] for every token."""

    fusion_ratio: Tensor
    guidance_scale: Tensor


@dataclass(frozen=True)
class StepRecord:
    """What one step did to one clip; None where there was no variance, or no s*.

    `variance` is in multiples of what is usual where the config says what that is; `fusion_ratio`
    is the mean over the background where tokens have their own.
    """

    step: int
    sigma: float
    variance: float | None
    fusion_ratio: float
    guidance_scale: float
    unconditional_scale: float | None


@dataclass(frozen=True)
class EditResult:
    """video: uint8 [F, H, W, 3]; trace: one record a step."""

    video: Tensor
    trace: tuple[StepRecord, ...]


def check_request(request: EditRequest) -> None:
    """Raise ValueError, with what was expected, for a request that no model could take."""
    video, mask = request.video, request.mask
    for name, value in (("video", video), ("mask", mask)):
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(
                f"{name} is a {kind}; expected a torch tensor, as torch.as_tensor({name}) gives"
            )
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != torch.uint8:
        raise ValueError(
            f"video is {video.dtype} {tuple(video.shape)}; expected uint8 [F, H, W, 3]"
        )
    if mask.dtype != torch.bool or mask.shape != video.shape[:3]:
        raise ValueError(
            f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool {tuple(video.shape[:3])}"
        )
    if not mask.any():
        raise ValueError(
            "the mask is empty, so nothing may be edited; mark the region to edit as True"
        )
    if not isinstance(request.prompt, str) or not request.prompt.strip():
        raise ValueError(
            f"the prompt is {request.prompt!r}; expected words that describe the edited clip"
        )
