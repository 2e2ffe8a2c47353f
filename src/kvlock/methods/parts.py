"""The records that plug into the core's config. No torch here: each one's work stands in its own file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvlock.contract.options import (
    FINITE,
    FROM_0,
    MOST_STEPS,
    POSITIVE,
    SHARE,
    STEPS,
    Part,
    Steps,
    option,
)
from kvlock.core.config import KVLockConfig
from kvlock.methods.fading import fading_weight

if TYPE_CHECKING:
    from torch import Tensor

    from kvlock.contract.types import Measured, Step
    from kvlock.core.branches import Branches
    from kvlock.core.clips import Clips
    from kvlock.core.variance import Window

Usual = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Inject(Part):
    """The lock in the first steps alone, fading, or inside the mask as well (AdaEdit, ProEdit)."""

    inject_steps: Steps = option(1.0, "T_inj: the first steps, after which the lock is off", STEPS)
    fade_curve: Literal["none", "sigmoid", "cosine", "linear"] = option(
        "none", "AdaEdit's fade of alpha from 1 to 0 over inject_steps"
    )
    foreground_ratio: float = option(
        0.0, "weight of the source's keys and values inside the mask; 0.1 in ProEdit", SHARE
    )

    def weight(self, step: int, config: KVLockConfig) -> float:
        """What alpha is multiplied with, 0 to 1."""
        inject = config.count(self.inject_steps)
        if self.fade_curve == "none":
            return float(step < inject)
        return fading_weight(self.fade_curve, step, inject)


@dataclass(frozen=True)
class Calibration(Part):
    """The variance in multiples of what is usual for the model, and for every token its own (ours)."""

    usual: Usual = option(
        (),
        "(noise level, variance) pairs of the model, from kvlock calibrate",
        (
            lambda pairs: all(len(p) == 2 and SHARE[0](p[0]) and POSITIVE[0](p[1]) for p in pairs),
            "pairs of a noise level from 0 to 1 and a variance above 0",
        ),
    )
    lock_width: float = option(
        0.0,
        "above 0: a background token's alpha comes from the mask within about so many latents",
        FROM_0,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "usual", tuple(map(tuple, self.usual)))  # JSON has lists
        super().__post_init__()

    def measure(
        self, variance: "Tensor", window: "Window", patch_size: tuple[int, int, int]
    ) -> "Measured":
        """Variance over that of the noise levels, in multiples of what is usual."""
        from kvlock.methods.calibrated import calibrated

        return calibrated(self.usual, self.lock_width, variance, window, patch_size)


@dataclass(frozen=True)
class APG(Part):
    """Adaptive projected guidance in the lock steps (arXiv 2410.02416)."""

    apg_momentum: float = option(-0.5, "beta of adaptive projected guidance", FINITE)
    apg_parallel: float = option(
        0.0, "eta: how much of the part parallel to the conditional stays", FINITE
    )

    def combine(
        self,
        cond: "Tensor",
        uncond: "Tensor",
        omega: "Tensor",
        kept: "Tensor | None",
        carried: "Tensor | None",
    ) -> "tuple[Tensor, Tensor]":
        """Of two clean predictions; carries the running average of their difference."""
        from kvlock.methods.apg import project

        return project(cond, uncond, omega, carried, self, kept)


@dataclass(frozen=True)
class Inversion(Part):
    """The source inverted instead of noised, and the edit's start from there (ProEdit)."""

    latents_shift: float = option(
        0.0, "beta: how far the start inside the mask takes on fresh noise's statistics", SHARE
    )

    def path(self, branches: "Branches") -> "list[Tensor]":
        """The source's latents at the start of each step and, last, the source."""
        from kvlock.methods.inversion import inverted_path

        return inverted_path(branches)

    def start(self, latents: "Tensor", clips: "Clips") -> "Tensor":
        """The inverted source, inside the mask drawn towards fresh noise's statistics."""
        from kvlock.methods.inversion import shift_latents

        if not self.latents_shift:
            return latents
        return shift_latents(latents, clips.start, clips.foreground, self.latents_shift)


@dataclass(frozen=True)
class Drop(Part):
    """The edit's background is not computed; the source's keys, values and latents stand in for it."""

    drop_steps: Literal["locked", "all"] = option("all", "in which steps the background is dropped")
    drop_margin: int = option(1, "tokens around the mask that are computed all the same", FROM_0)
    source_refresh: Steps = option(
        1,
        "run the source once in so many steps, a count or a fraction of N, and reuse its keys",
        (
            lambda x: 1 <= x <= MOST_STEPS if isinstance(x, int) else 0 < x < 1,
            "a count from 1, or a fraction below 1",
        ),
    )
    background_context: float = option(
        1.0, "the share of the background that the source keeps, half of it near the mask", SHARE
    )

    def refresh_steps(self, config: KVLockConfig) -> int:
        """Steps from one run of the source to the next."""
        return config.count(self.source_refresh)

    def plan(self, steps: "list[Step]", config: KVLockConfig) -> "list[Step]":
        """Drops in all steps, or in those with the source, which it runs once in a while.

        Raises ValueError where the lock does not go with it: alpha is 1 where it drops.
        """
        self._check(config)
        every, dropped, planned = self.refresh_steps(config), 0, []
        for step in steps:
            if self.drop_steps == "all" or step.source:
                switched = bool(planned) and planned[-1].expert != step.expert
                dropped = 0 if switched else dropped  # another expert's keys are of no use
                step = step._replace(dropped=True, source=dropped % every == 0)
                dropped += 1
            planned.append(step)
        return planned

    def _check(self, config: KVLockConfig) -> None:
        lock, calibration = config.lock, config.signal.calibration
        if self.drop_steps == "all" and lock:
            raise ValueError("drop_steps is 'all', so no step is left to lock; expected lock=None")
        if self.drop_steps == "locked" and lock is None:
            raise ValueError("drop_steps is 'locked', but lock is None; expected a lock, or 'all'")
        inside = lock and lock.injection and lock.injection.foreground_ratio
        if lock and (inside or lock.fusion_ratio not in ("variance", 1)):
            raise ValueError(
                f"fusion_ratio is {lock.fusion_ratio!r}; with drop alpha is 1 on the background and "
                "0 inside: expected 1 or 'variance', and foreground_ratio=0"
            )
        if isinstance(calibration, Calibration) and calibration.lock_width:
            raise ValueError(
                f"lock_width is {calibration.lock_width!r}; expected 0 with drop, where alpha is 1"
            )
