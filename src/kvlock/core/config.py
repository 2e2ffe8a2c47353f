"""Every choice of the method, in parts; a part that is None is off. No torch here.

The parts' names and the options' are all different, so that an option is known by its name alone.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kvlock.core.protocols import Calibration, Dropping, Fading, Inversion, Projection

Steps = int | float  # a count of steps, or a fraction of N


def option(default: Any, help: str) -> Any:
    """A field with the help that the command line shows."""
    return field(default=default, metadata={"help": help})


def require(holds: bool, part: Any, name: str, expected: str) -> None:
    """Raise ValueError, with the value and what was expected, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} is {getattr(part, name)!r}; expected {expected}")


def require_choice(part: Any, name: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the option is one of `choices`."""
    require(getattr(part, name) in choices, part, name, f"one of {', '.join(choices)}")


def require_steps(part: Any, name: str) -> None:
    """Raise ValueError unless the option is a count from 0, or a fraction 0.0 to 1.0."""
    steps = getattr(part, name)
    whole = isinstance(steps, int) and steps >= 0
    fraction = isinstance(steps, float) and 0 <= steps <= 1
    require(whole or fraction, part, name, "a count from 0, or a fraction 0.0 to 1.0")


@dataclass(frozen=True)
class Lock:
    """KV fusion in the lock steps (KV-Lock, KV fusion)."""

    fusion_ratio: float | Literal["variance"] = option(
        "variance", "alpha in the lock steps: the paper's schedule, or a number above 0, up to 1"
    )
    inject_steps: Steps = option(
        1.0, "T_inj: the first steps, a count or a fraction, after which the lock is off; all"
    )
    foreground_ratio: float = option(
        0.0,
        "weight of the source's keys and values inside the mask; 0 in the paper, 0.1 in ProEdit",
    )
    fade: "Fading | None" = None

    def __post_init__(self) -> None:
        number = isinstance(self.fusion_ratio, (int, float)) and 0 < self.fusion_ratio <= 1
        sound = number or (self.fusion_ratio == "variance" and self.fade is None)
        expected = "a number above 0, up to 1" + (" (it fades)" if self.fade else ", or 'variance'")
        require(sound, self, "fusion_ratio", expected)
        require_steps(self, "inject_steps")
        require(0 <= self.foreground_ratio <= 1, self, "foreground_ratio", "a number from 0 to 1")


@dataclass(frozen=True)
class Signal:
    """What is watched while the model denoises (KV-Lock, hallucination metric)."""

    window: Steps = option(
        10, "W: predictions that the variance is taken over, a count or a fraction of N"
    )
    threshold: float = option(
        0.01, "tau: the variance that counts as full risk, in squared normalised latent units"
    )
    detection: Literal["local", "global"] = option(
        "local", "take the variance inside the mask, or everywhere"
    )
    prediction: Literal["guided", "conditional"] = option(
        "guided", "the prediction watched; 'conditional' leaves out what guidance adds to it"
    )
    calibration: "Calibration | None" = None

    def __post_init__(self) -> None:
        whole = isinstance(self.window, int) and self.window >= 2
        fraction = isinstance(self.window, float) and 0 < self.window < 1
        require(whole or fraction, self, "window", "a count of at least 2, or a fraction below 1")
        require(self.threshold > 0, self, "threshold", "above 0")
        require_choice(self, "detection", ("local", "global"))
        require_choice(self, "prediction", ("guided", "conditional"))


@dataclass(frozen=True)
class AdaptiveGuidance:
    """The guidance in the lock steps follows the variance (KV-Lock, dynamic schedules)."""

    guidance_floor: float = option(
        1.0, "lower clamp of omega / omega_0; 0 is the paper's literal form"
    )
    guidance_boost: float = option(2.0, "b: upper clamp of omega / omega_0")
    guidance_minimum: float = option(
        0.0, "omega is never below this, whatever the lower clamp gives"
    )
    guidance_response: Literal["raise", "lower"] = option(
        "raise",
        "omega / omega_0 is the variance over tau, as in the paper, or tau over the variance",
    )

    def __post_init__(self) -> None:
        sound = 0 <= self.guidance_floor < self.guidance_boost
        require(
            sound, self, "guidance_floor", f"from 0 to below guidance_boost, {self.guidance_boost}"
        )
        require(self.guidance_minimum >= 0, self, "guidance_minimum", "0 or more")
        require_choice(self, "guidance_response", ("raise", "lower"))


@dataclass(frozen=True)
class Guidance:
    """How the conditional and the unconditional prediction are combined (KV-Lock, guidance)."""

    guidance_scale: float = option(
        5.0, "omega_0, guidance at rest; 1 turns guidance off and runs no unconditional branch"
    )
    adaptive: AdaptiveGuidance | None = AdaptiveGuidance()
    lock_guidance: float = option(1.0, "omega / omega_0 in the lock steps where it does not adapt")
    unconditional_scale: bool = option(
        True, "project the unconditional prediction with s* (CFG-Zero*)"
    )
    zero_init_steps: Steps = option(
        0, "CFG-Zero*: the first steps, a count or a fraction, whose prediction is set to zero"
    )
    guidance_interval: tuple[float, float] = option(
        (0.0, 1.0), "noise levels with guidance (arXiv 2404.07724); elsewhere omega is 1"
    )
    projection: "Projection | None" = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        require(self.guidance_scale >= 1, self, "guidance_scale", "1 (off) or more")
        require(self.lock_guidance > 0, self, "lock_guidance", "above 0")
        alone = self.adaptive is None or self.lock_guidance == 1
        require(
            alone,
            self,
            "lock_guidance",
            "1 where the guidance adapts; a constant needs adaptive=None",
        )
        require_steps(self, "zero_init_steps")
        interval = self.guidance_interval
        sound = len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1
        require(sound, self, "guidance_interval", "a lower and an upper noise level from 0 to 1")
        alone = not (self.projection and self.unconditional_scale)
        require(alone, self, "unconditional_scale", "False beside a projection, which has no s*")


@dataclass(frozen=True)
class Source:
    """How the edit begins at the source and is tied to it."""

    strength: float = option(
        1.0, "below 1, start from the source noised to that share of the steps"
    )
    background_anchor: Literal["auto", "none", "latents"] = option(
        "auto",
        "'latents' puts the source back into the background after each step; 'auto' where the model needs it",
    )
    inversion: "Inversion | None" = None

    def __post_init__(self) -> None:
        require(0 < self.strength <= 1, self, "strength", "above 0 and at most 1")
        require_choice(self, "background_anchor", ("auto", "none", "latents"))


@dataclass(frozen=True)
class KVLockConfig:
    """How an edit is made. The defaults are the paper's where it gives them.

    Raises ValueError for a value out of its range and for parts that do not go together.
    """

    num_inference_steps: int = option(50, "denoising steps N; 50 in the paper")
    lock_steps: Steps = option(
        0.4,
        "kappa: the last steps, which lock and adapt, as a count (20) or as a fraction of N (0.4)",
    )
    lock: Lock | None = Lock()
    signal: Signal = Signal()
    guidance: Guidance = Guidance()
    source: Source = Source()
    drop: "Dropping | None" = None

    def __post_init__(self) -> None:
        steps = self.num_inference_steps
        require(isinstance(steps, int) and steps >= 1, self, "num_inference_steps", "at least 1")
        require_steps(self, "lock_steps")
        parts = {"lock_steps": self, "inject_steps": self.lock, "zero_init_steps": self.guidance}
        for name, part in parts.items():
            count = getattr(part, name) if part else 0
            fits = isinstance(count, float) or count <= steps
            require(fits, part, name, f"a count up to num_inference_steps, {steps}, or a fraction")
        if self.drop:
            self.drop.check(self)

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
    def watches_variance(self) -> bool:
        """Whether anything hangs on the variance, and so on the threshold."""
        locks = self.lock is not None and self.lock.fusion_ratio == "variance"
        return locks or (self.guidance.adaptive is not None and self.guidance.guidance_scale > 1)

    @property
    def window_steps(self) -> int:
        """W as a count; two predictions at least."""
        return max(2, self.count(self.signal.window))

    def count(self, steps: Steps) -> int:
        """Steps as a count; a fraction above 0 is at least one step."""
        if isinstance(steps, int):
            return steps
        return max(round(steps * self.num_inference_steps), int(steps > 0))
