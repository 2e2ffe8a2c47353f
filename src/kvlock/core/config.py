"""Every choice of the method, in parts; a part that is None is off. No torch here.

The names of parts and options are all different, so that an option is known by its name alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvlock.contract.options import (
    COUNT,
    FRACTION,
    FROM_0,
    FROM_1,
    MOST_STEPS,
    POSITIVE,
    STEPS,
    Part,
    Steps,
    option,
    require,
)

if TYPE_CHECKING:
    from kvlock.core.plugs import Calibration, Dropping, Injection, Inversion, Projection


@dataclass(frozen=True)
class Lock(Part):
    """KV fusion in the lock steps (KV-Lock, KV fusion)."""

    fusion_ratio: float | Literal["variance"] = option(
        "variance", "alpha in the lock steps: the paper's schedule, or a number above 0, up to 1"
    )
    injection: "Injection | None" = None

    def __post_init__(self) -> None:
        ratio = self.fusion_ratio
        sound = ratio == "variance" or (isinstance(ratio, (int, float)) and 0 < ratio <= 1)
        require(sound, self, "fusion_ratio", "a number above 0, up to 1, or 'variance'")


@dataclass(frozen=True)
class Signal(Part):
    """What is watched while the model denoises (KV-Lock, hallucination metric)."""

    window: Steps = option(
        10,
        "W: predictions that the variance is taken over, a count or a fraction of N",
        (
            lambda x: 2 <= x <= MOST_STEPS if isinstance(x, int) else 0 < x < 1,
            "a count of at least 2, or a fraction below 1",
        ),
    )
    threshold: float = option(
        0.01, "tau: the variance that counts as full risk, in squared normalised latents", POSITIVE
    )
    detection: Literal["local", "global"] = option("local", "watch inside the mask, or everywhere")
    prediction: Literal["guided", "conditional"] = option(
        "guided", "the prediction watched; 'conditional' leaves out what guidance adds to it"
    )
    calibration: "Calibration | None" = None


@dataclass(frozen=True)
class AdaptiveGuidance(Part):
    """The guidance in the lock steps follows the variance (KV-Lock, dynamic schedules)."""

    guidance_floor: float = option(
        1.0, "lower clamp of omega / omega_0; 0 is the paper's literal form", FROM_0
    )
    guidance_boost: float = option(2.0, "b: upper clamp of omega / omega_0", POSITIVE)
    guidance_minimum: float = option(0.0, "omega is never below this", FROM_0)
    guidance_response: Literal["raise", "lower"] = option(
        "raise", "omega / omega_0 is the variance over tau, as in the paper, or tau over it"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        below = self.guidance_floor < self.guidance_boost
        require(below, self, "guidance_floor", f"below guidance_boost, {self.guidance_boost}")


@dataclass(frozen=True)
class Guidance(Part):
    """How the conditional and the unconditional prediction are combined (KV-Lock, guidance)."""

    guidance_scale: float = option(5.0, "omega_0, guidance at rest; 1 turns it off", FROM_1)
    guidance_scale_2: float | None = option(
        None,
        "omega_0 of a second expert, which takes over at low noise; the first's without it",
        (lambda x: x is None or FROM_1[0](x), FROM_1[1]),
    )
    adaptive: AdaptiveGuidance | None = AdaptiveGuidance()
    lock_guidance: float = option(
        1.0, "omega / omega_0 in the lock steps where it does not adapt", POSITIVE
    )
    unconditional_scale: bool = option(True, "project the unconditional with s* (CFG-Zero*)")
    zero_init_steps: Steps = option(0, "CFG-Zero*: first steps whose prediction is zero", STEPS)
    guidance_interval: tuple[float, float] = option(
        (0.0, 1.0),
        "noise levels with guidance (arXiv 2404.07724); elsewhere omega is 1",
        (
            lambda x: len(x) == 2 and 0 <= x[0] <= x[1] <= 1,
            "a lower and an upper noise level from 0 to 1",
        ),
    )
    projection: "Projection | None" = None

    def scale(self, expert: int) -> float:
        """omega_0 where this expert is active."""
        return (expert and self.guidance_scale_2) or self.guidance_scale

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        super().__post_init__()
        steady = self.adaptive is None or self.lock_guidance == 1
        require(steady, self, "lock_guidance", "1 where the guidance adapts (adaptive)")
        free = not (self.projection and self.unconditional_scale)
        require(free, self, "unconditional_scale", "False beside a projection, which has no s*")


@dataclass(frozen=True)
class Source(Part):
    """How the edit begins at the source and is tied to it."""

    strength: float = option(1.0, "below 1, start from the source noised so far", FRACTION)
    background_anchor: Literal["auto", "none", "latents"] = option(
        "auto",
        "'latents' puts the source back into the background after each step; 'auto' where the "
        "model needs it",
    )
    inversion: "Inversion | None" = None


@dataclass(frozen=True)
class KVLockConfig(Part):
    """How an edit is made. The defaults are the paper's where it gives them.

    Raises ValueError for a value out of its range and for parts that do not go together.
    """

    num_inference_steps: int = option(50, "denoising steps N; 50 in the paper", COUNT)
    lock_steps: Steps = option(
        0.4, "kappa: the last steps, which lock and adapt, a count or a fraction of N", STEPS
    )
    lock: Lock | None = Lock()
    signal: Signal = Signal()
    guidance: Guidance = Guidance()
    source: Source = Source()
    drop: "Dropping | None" = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for part, name in ((self, "lock_steps"), (self.guidance, "zero_init_steps")):
            fits = self.count(getattr(part, name)) <= self.num_inference_steps
            require(fits, part, name, f"at most num_inference_steps, {self.num_inference_steps}")
        if self.drop:
            self.drop.plan([], self)  # refuses what does not go with it

    @property
    def first_lock_step(self) -> int:
        """T - kappa, the step at which the schedules begin."""
        return self.num_inference_steps - self.count(self.lock_steps)

    @property
    def first_step(self) -> int:
        """The step that sampling starts at; above 0 where `strength` is below 1."""
        steps = self.num_inference_steps
        return steps - max(1, round(self.source.strength * steps))

    @property
    def window_steps(self) -> int:
        """W as a count; two predictions at least."""
        return max(2, self.count(self.signal.window))

    def count(self, steps: Steps) -> int:
        """Steps as a count; a fraction above 0 is at least one step."""
        if isinstance(steps, int):
            return steps
        return max(round(steps * self.num_inference_steps), int(steps > 0))
