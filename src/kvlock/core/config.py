"""Every choice of the method as one frozen record. No torch here, so that the command line can read it at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

Usual = tuple[tuple[float, float], ...]


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class KVLockConfig:
    """How an edit is made. The defaults are the paper's (KV-Lock, implementation details) where it gives them.

    Each field's meaning stands in its metadata, from where the command line takes its help.
    Raises ValueError for a value out of its range.
    """

    num_inference_steps: int = _option(50, "denoising steps N; 50 in the paper")
    guidance_scale: float = _option(
        5.0, "omega_0, guidance at rest; 1 turns guidance off and runs no unconditional forward"
    )
    fusion_ratio: float | Literal["variance", "sigmoid", "cosine", "linear"] = _option(
        "variance",
        "alpha in the lock steps: a constant in [0, 1], 'variance' for the paper's schedule, or AdaEdit's fade from 1 "
        "to 0 over inject_steps",
    )
    foreground_ratio: float = _option(
        0.0, "weight of the source's keys and values inside the mask in the lock steps; 0 in the paper, 0.1 in ProEdit"
    )
    adaptive_guidance: bool = _option(True, "let the variance set the guidance in the lock steps")
    unconditional_scale: bool = _option(True, "project the unconditional prediction with s* (CFG-Zero*)")
    lock_steps: int | float = _option(0.4, "kappa: the last steps, as a count (20) or as a fraction of N (0.4)")
    inject_steps: int | float = _option(
        1.0, "T_inj: the first steps, as a count or a fraction, after which the lock is off again; all in the paper"
    )
    window: int | float = _option(
        10, "W: how many predictions of the clean clip the variance is taken over, as a count or as a fraction of N"
    )
    signal: Literal["guided", "conditional"] = _option(
        "guided", "which prediction the variance is taken of; 'conditional' leaves out what guidance adds to it"
    )
    usual: Usual = _option(
        (),
        "(noise level, variance) pairs of the model, from kvlock calibrate; tau then counts in multiples of them",
    )
    threshold: float = _option(
        0.01, "tau: the variance that counts as full risk, in squared normalised latent units, or multiples of `usual`"
    )
    guidance_floor: float = _option(1.0, "lower clamp of omega / omega_0; 0 is the paper's literal form")
    guidance_boost: float = _option(2.0, "b: upper clamp of omega / omega_0")
    guidance_response: Literal["raise", "lower"] = _option(
        "raise", "whether omega / omega_0 is the variance over tau, as in the paper, or tau over the variance"
    )
    guidance_minimum: float = _option(0.0, "omega is never below this, whatever the lower clamp gives")
    guidance: Literal["cfg", "apg"] = _option(
        "cfg", "how predictions are combined in the lock steps: classifier-free, or adaptive projected guidance"
    )
    zero_init_steps: int | float = _option(
        0, "CFG-Zero*: the first steps, as a count or a fraction, whose velocity is set to zero"
    )
    detection: Literal["local", "global"] = _option("local", "take the variance inside the mask, or everywhere")
    lock_width: float = _option(
        0.0,
        "above 0, a background token's alpha comes from the mask's latents within about so many latents, and fades "
        "with their distance; 0 gives all the background one alpha",
    )
    background_anchor: Literal["auto", "none", "latents"] = _option(
        "auto", "'latents' puts the source back into the background after each step; 'auto' is the model's own need"
    )
    source_path: Literal["noised", "inverted"] = _option(
        "noised", "the source at each noise level: noised forward as in the paper, or inverted, the edit's start too"
    )
    latents_shift: float = _option(
        0.0, "beta of ProEdit's latents-shift: how far the start inside the mask takes on fresh noise's statistics"
    )
    strength: float = _option(1.0, "below 1, start from the source noised to that share of the steps")
    rows: Literal["batched", "sequential"] = _option(
        "batched",
        "source, conditional and unconditional in one forward, or one after the other: as the stock pipelines do, and "
        "with the lock layer by layer, which needs the least memory",
    )
    drop_background: Literal["none", "locked", "all"] = _option(
        "none",
        "in which steps the edit's background is not computed but taken from the source: alpha is 1 there; its "
        "latents are put back after every step",
    )
    drop_margin: int = _option(1, "tokens around the mask that are computed where the background is dropped")
    source_refresh: int | float = _option(
        1,
        "where the background is dropped, run the source once in so many steps, a count or a fraction of N, and use "
        "its keys and values again",
    )
    source_store: Literal["device", "host"] = _option(
        "device", "where the source's keys and values wait for the next steps"
    )
    background_context: float = _option(
        1.0,
        "where the background is dropped, the share of it that the source still has: half of that share nearest to "
        "the mask, half a regular sample of the rest",
    )
    guidance_interval: tuple[float, float] = _option(
        (0.0, 1.0), "the noise levels between which there is guidance (arXiv 2404.07724); elsewhere omega is 1"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "usual", tuple(map(tuple, self.usual)))  # as JSON has it, it is made of lists
        _require(self.num_inference_steps >= 1, self, "num_inference_steps", "at least 1")
        _require(self.guidance_scale >= 1, self, "guidance_scale", "1 (off) or more")
        if self.fusion_ratio not in SCHEDULES:
            _require(
                _is_share(self.fusion_ratio), self, "fusion_ratio", f"a number from 0 to 1, or one of {SCHEDULES}"
            )
        for name in ("foreground_ratio", "latents_shift"):
            _require(_is_share(getattr(self, name)), self, name, "a number from 0 to 1")
        for name in ("lock_steps", "inject_steps", "zero_init_steps"):
            steps = getattr(self, name)
            whole = isinstance(steps, int) and 0 <= steps <= self.num_inference_steps
            expected = "a count from 0 to num_inference_steps, or a fraction 0.0 to 1.0"
            _require(whole or (isinstance(steps, float) and 0 <= steps <= 1), self, name, expected)
        whole = isinstance(self.window, int) and self.window >= 2
        _require(whole or 0 < self.window < 1, self, "window", "a count of at least 2, or a fraction below 1")
        sound = all(len(pair) == 2 and 0 <= pair[0] <= 1 and pair[1] > 0 for pair in self.usual)
        _require(sound, self, "usual", "pairs of a noise level from 0 to 1 and a variance above 0")
        _require(self.lock_width >= 0, self, "lock_width", "0 or more")
        _require(self.threshold > 0, self, "threshold", "above 0")
        _require(0 <= self.guidance_floor <= self.guidance_boost, self, "guidance_floor", "from 0 to guidance_boost")
        _require(self.guidance_minimum >= 0, self, "guidance_minimum", "0 or more")
        _require(0 < self.strength <= 1, self, "strength", "above 0 and at most 1")
        self._check_dropping()
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, self, name, f"one of {choices}")

    def _check_dropping(self) -> None:
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        interval = self.guidance_interval
        sound = len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1
        _require(sound, self, "guidance_interval", "a lower and an upper noise level from 0 to 1")
        _require(self.drop_margin >= 0, self, "drop_margin", "0 or more")
        whole = isinstance(self.source_refresh, int) and self.source_refresh >= 1
        _require(whole or 0 < self.source_refresh < 1, self, "source_refresh", "a count from 1, or a fraction below 1")
        _require(0 <= self.background_context <= 1, self, "background_context", "a number from 0 to 1")
        if self.drop_background == "none":
            for name, rest in (("source_refresh", 1), ("background_context", 1.0)):
                _require(getattr(self, name) == rest, self, name, f"{rest} without drop_background{_OTHER_METHOD}")
        else:
            for name in ("foreground_ratio", "lock_width"):
                _require(getattr(self, name) == 0, self, name, f"0 with drop_background{_OTHER_METHOD}")
            sound = isinstance(self.fusion_ratio, str) or self.fusion_ratio == 1
            _require(sound, self, "fusion_ratio", f"1 with drop_background{_OTHER_METHOD}")

    @property
    def first_lock_step(self) -> int:
        """T - kappa, the step at which the schedules begin."""
        return self.num_inference_steps - self.count(self.lock_steps)

    @property
    def first_step(self) -> int:
        """The step that sampling starts at; above 0 where `strength` is below 1."""
        return self.num_inference_steps - max(1, round(self.strength * self.num_inference_steps))

    @property
    def watches_variance(self) -> bool:
        """Whether anything hangs on the variance, and so on the threshold."""
        moves = self.adaptive_guidance and self.guidance_floor < self.guidance_boost
        return self.fusion_ratio == "variance" or moves

    @property
    def window_steps(self) -> int:
        """W as a count; two predictions at least."""
        return max(2, self.count(self.window))

    @property
    def refresh_steps(self) -> int:
        """Steps from one run of the source to the next, where the background is dropped; 1 runs it in each."""
        return self.count(self.source_refresh)

    def count(self, steps: int | float) -> int:
        """A count of steps that is given as one, or as a fraction of N; a fraction above 0 is at least one step."""
        return steps if isinstance(steps, int) else max(round(steps * self.num_inference_steps), int(steps > 0))


_OTHER_METHOD = ", or a method that does not drop it, such as constant"
SCHEDULES = ("variance", "sigmoid", "cosine", "linear")
_CHOICES = {
    "drop_background": ("none", "locked", "all"),
    "source_store": ("device", "host"),
    "detection": ("local", "global"),
    "background_anchor": ("auto", "none", "latents"),
    "rows": ("batched", "sequential"),
    "signal": ("guided", "conditional"),
    "guidance": ("cfg", "apg"),
    "guidance_response": ("raise", "lower"),
    "source_path": ("noised", "inverted"),
}


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _require(holds: bool, config: KVLockConfig, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {getattr(config, name)!r}; expected {expected}")
