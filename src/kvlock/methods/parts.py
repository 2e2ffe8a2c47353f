"""The records that plug into the core's config. No torch here: each one's work stands in its own file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvlock.core.config import KVLockConfig, Steps, option, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor

    from kvlock.core.branches import Branches
    from kvlock.core.clips import Clips
    from kvlock.core.protocols import Sampler
    from kvlock.core.types import Measured, Step

Usual = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Fade:
    """alpha fades over inject_steps (AdaEdit)."""

    fade_curve: Literal["sigmoid", "cosine", "linear"] = option(
        "sigmoid", "AdaEdit's fade of alpha from 1 to 0 over inject_steps"
    )

    def __post_init__(self) -> None:
        require_choice(self, "fade_curve", ("sigmoid", "cosine", "linear"))

    def weight(self, step: int, inject_steps: int) -> float:
        """What fusion_ratio is multiplied with, 0 to 1."""
        from kvlock.methods.fading import fading_weight

        return fading_weight(self.fade_curve, step, inject_steps)


@dataclass(frozen=True)
class Calibration:
    """The variance in multiples of what is usual for the model, and for every token its own (ours)."""

    usual: Usual = option((), "(noise level, variance) pairs of the model, from kvlock calibrate")
    lock_width: float = option(
        0.0, "above 0: a background token's alpha comes from the mask within about so many latents"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "usual", tuple(map(tuple, self.usual)))  # JSON has lists
        sound = all(len(pair) == 2 and 0 <= pair[0] <= 1 and pair[1] > 0 for pair in self.usual)
        require(sound, self, "usual", "pairs of a noise level from 0 to 1 and a variance above 0")
        require(self.lock_width >= 0, self, "lock_width", "0 or more")

    def measure(
        self,
        variance: "Tensor",
        predictions: "tuple[Tensor, ...]",
        region: "Tensor",
        sigmas: Sequence[float],
        patch_size: tuple[int, int, int],
    ) -> "Measured":
        """Variance over that of the noise levels, in multiples of what is usual."""
        from kvlock.methods.calibrated import calibrated

        return calibrated(
            self.usual, self.lock_width, variance, predictions, region, sigmas, patch_size
        )


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance in the lock steps (arXiv 2410.02416)."""

    apg_momentum: float = option(-0.5, "beta of adaptive projected guidance")
    apg_parallel: float = option(0.0, "eta: how much of the part parallel to the conditional stays")

    def combine(
        self,
        conditional: "Tensor",
        unconditional: "Tensor",
        guidance_scale: "Tensor",
        carried: "Tensor | None",
    ) -> "tuple[Tensor, Tensor]":
        """Of two clean predictions; carries the running average of their difference."""
        from kvlock.methods.apg import project

        return project(conditional, unconditional, guidance_scale, carried, self)


@dataclass(frozen=True)
class Inversion:
    """The source inverted instead of noised, and the edit's start from there (ProEdit)."""

    latents_shift: float = option(
        0.0, "beta: how far the start inside the mask takes on fresh noise's statistics"
    )

    def __post_init__(self) -> None:
        require(0 <= self.latents_shift <= 1, self, "latents_shift", "a number from 0 to 1")

    def path(
        self, branches: "Branches", clips: "Clips", sampler: "Sampler", steps: int
    ) -> "list[Tensor]":
        """The source's latents at the start of each step and, last, the source."""
        from kvlock.methods.inversion import inverted_path

        return inverted_path(branches, sampler, clips.source, steps)

    def start(self, latents: "Tensor", clips: "Clips") -> "Tensor":
        """The inverted source, inside the mask drawn towards fresh noise's statistics."""
        from kvlock.methods.inversion import shift_latents

        if not self.latents_shift:
            return latents
        return shift_latents(latents, clips.start, clips.foreground, self.latents_shift)


@dataclass(frozen=True)
class Drop:
    """The edit's background is not computed; the source's keys, values and latents stand in for it."""

    drop_steps: Literal["locked", "all"] = option("all", "in which steps the background is dropped")
    drop_margin: int = option(1, "tokens around the mask that are computed all the same")
    source_refresh: Steps = option(
        1,
        "run the source once in so many steps, a count or a fraction of N, and reuse its keys and values",
    )
    background_context: float = option(
        1.0, "the share of the background that the source keeps: half of it nearest to the mask"
    )

    def __post_init__(self) -> None:
        require_choice(self, "drop_steps", ("locked", "all"))
        require(self.drop_margin >= 0, self, "drop_margin", "0 or more")
        refresh = self.source_refresh
        sound = refresh >= 1 if isinstance(refresh, int) else 0 < refresh < 1
        require(sound, self, "source_refresh", "a count from 1, or a fraction below 1")
        sound = 0 <= self.background_context <= 1
        require(sound, self, "background_context", "a number from 0 to 1")

    def check(self, config: KVLockConfig) -> None:
        """Raise ValueError where the lock does not go with it: alpha is 1 where it drops."""
        lock = config.lock
        if self.drop_steps == "all" and lock:
            raise ValueError("drop_steps is 'all', so no step is left to lock; expected lock=None")
        if self.drop_steps == "locked" and lock is None:
            raise ValueError("drop_steps is 'locked', but lock is None; expected a lock, or 'all'")
        if lock and (lock.foreground_ratio or lock.fusion_ratio not in ("variance", 1)):
            raise ValueError(
                "with drop alpha is 1 on the background and 0 inside; expected fusion_ratio=1 or "
                "'variance', and foreground_ratio=0"
            )

    def refresh_steps(self, config: KVLockConfig) -> int:
        """Steps from one run of the source to the next."""
        return config.count(self.source_refresh)

    def plan(self, steps: "list[Step]", config: KVLockConfig) -> "list[Step]":
        """Drops in all steps, or in those with the source, which it runs once in a while."""
        every, dropped, planned = self.refresh_steps(config), 0, []
        for step in steps:
            if self.drop_steps == "all" or step.source:
                step = step._replace(dropped=True, source=dropped % every == 0)
                dropped += 1
            planned.append(step)
        return planned
