"""What the steps did, collected on the device: nothing waits for it before it is read."""

import torch
from torch import Tensor

from kvlock.contract.types import Control, Measured, StepRecord


class NonFiniteError(ArithmeticError):
    """The latents became NaN or infinite."""


class Trace:
    """The steps of an edit of several clips. background: bool [B, L], over which alpha is averaged."""

    def __init__(self, background: Tensor):
        self._background = background
        self._steps: list[tuple[int, float, list[Tensor | None]]] = []
        self._finite: list[Tensor] = []

    def add(
        self,
        step: int,
        sigma: float,
        latents: Tensor,
        measured: Measured | None,
        control: Control,
        scale: Tensor | None,
    ) -> None:
        """What a step did, and the latents that it left; scale: s* [B]."""
        ratio, variance = control.fusion_ratio, measured and measured.variance
        if ratio.ndim == 2:
            ratio = (ratio * self._background).sum(dim=1) / self._background.sum(dim=1).clamp(min=1)
        self._steps.append((step, float(sigma), [variance, ratio, control.guidance_scale, scale]))
        self._finite.append(torch.isfinite(latents).all())

    def latest(self) -> list[StepRecord]:
        """One record a clip of the last step. Raises NonFiniteError where its latents were not finite."""
        check_finite(self._finite[-1], self._steps[-1][0])
        return self._records(*self._steps[-1])

    def records(self) -> list[tuple[StepRecord, ...]]:
        """Every step's record, clip by clip. Raises NonFiniteError with the first step that left the finite."""
        for (step, *_), finite in zip(self._steps, torch.stack(self._finite).cpu()):
            check_finite(finite, step)
        return list(zip(*(self._records(*step) for step in self._steps)))

    def _records(self, step: int, sigma: float, values: list[Tensor | None]) -> list[StepRecord]:
        clips = len(self._background)
        columns = [[None] * clips if value is None else value.tolist() for value in values]
        return [StepRecord(step, sigma, *column) for column in zip(*columns)]


def check_finite(finite: Tensor, step: int) -> None:
    """Raise NonFiniteError unless `finite`, a 0-dim bool, holds after `step`."""
    if not finite:
        raise NonFiniteError(
            f"the latents are no longer finite after step {step}; try --dtype float32 or a lower guidance scale"
        )
