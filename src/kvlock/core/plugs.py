"""Where methods that are not the paper's plug in; each is a small frozen record with one method."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from kvlock.contract.types import Control, Measured, Step

if TYPE_CHECKING:
    from kvlock.core.branches import Branches
    from kvlock.core.clips import Clips
    from kvlock.core.config import KVLockConfig
    from kvlock.core.variance import Window


class Forwards(Protocol):
    """The model's forwards in one step of an edit.

    `computed`: latents whose tokens are computed, bool [B, F, H, W]; None where all are.
    `predict`: the conditional's prediction and, in a guided step, the unconditional's, from latents
    and source [B, C, F, H, W] at the step's noise level.
    """

    @property
    def computed(self) -> Tensor | None: ...

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]: ...


class Injection(Protocol):
    """Plugs into the lock: alpha's factor at a step, 0 to 1; the source's weight inside the mask."""

    @property
    def foreground_ratio(self) -> float: ...

    def weight(self, step: int, config: "KVLockConfig") -> float: ...


class Calibration(Protocol):
    """Plugs into the signal: another measure of the predictions that gave the variance [B]."""

    def measure(
        self, variance: Tensor, window: "Window", patch_size: tuple[int, int, int]
    ) -> Measured: ...


class Projection(Protocol):
    """Plugs into the guidance: another combination of two clean predictions, with omega [B].

    kept: bool [B, F, H, W], the latents that it decides, or None for all. Gives the combination,
    and what the next step gets as `carried` (None at first).
    """

    def combine(
        self,
        cond: Tensor,
        uncond: Tensor,
        omega: Tensor,
        kept: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


class Inversion(Protocol):
    """Plugs into the source: its latents at the start of each step and, last, clean; the edit's start."""

    def path(self, branches: "Branches") -> list[Tensor]: ...

    def start(self, latents: Tensor, clips: "Clips") -> Tensor: ...


class Dropping(Protocol):
    """Plugs into the plan: steps that do not compute the edit's background.

    ValueError where the rest of the config does not go with it.
    """

    def plan(self, steps: list[Step], config: "KVLockConfig") -> list[Step]: ...
