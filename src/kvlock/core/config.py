"""Every choice of the method as one frozen record. No torch here, so that the command line can read it at once."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal


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
    fusion_ratio: float | Literal["variance"] = _option(
        "variance", "alpha in the lock steps: a constant in [0, 1], or 'variance' for the paper's schedule"
    )
    adaptive_guidance: bool = _option(True, "let the variance raise the guidance in the lock steps")
    unconditional_scale: bool = _option(True, "project the unconditional prediction with s* (CFG-Zero*)")
    lock_steps: int | float = _option(0.4, "kappa: the last steps, as a count (20) or as a fraction of N (0.4)")
    window: int = _option(10, "W: how many predictions of the clean clip the variance is taken over")
    threshold: float = _option(0.01, "tau: the variance that counts as full risk, in squared normalised latent units")
    guidance_floor: float = _option(1.0, "lower clamp of omega / omega_0; 0 is the paper's literal form")
    guidance_boost: float = _option(2.0, "b: upper clamp of omega / omega_0")
    detection: Literal["local", "global"] = _option("local", "take the variance inside the mask, or everywhere")
    background_anchor: Literal["auto", "none", "latents"] = _option(
        "auto", "'latents' puts the source back into the background after each step; 'auto' is the model's own need"
    )
    strength: float = _option(1.0, "below 1, start from the source noised to that share of the steps")
    rows: Literal["batched", "sequential"] = _option(
        "batched",
        "source, conditional and unconditional in one forward, or one after the other as the stock pipelines do",
    )

    def __post_init__(self) -> None:
        _require(self.num_inference_steps >= 1, self, "num_inference_steps", "at least 1")
        _require(self.guidance_scale >= 1, self, "guidance_scale", "1 (off) or more")
        if self.fusion_ratio != "variance":
            valid = isinstance(self.fusion_ratio, (int, float)) and 0 <= self.fusion_ratio <= 1
            _require(valid, self, "fusion_ratio", "a number from 0 to 1, or 'variance'")
        whole = isinstance(self.lock_steps, int) and 0 <= self.lock_steps <= self.num_inference_steps
        share = isinstance(self.lock_steps, float) and 0 <= self.lock_steps <= 1
        _require(whole or share, self, "lock_steps", "a count from 0 to num_inference_steps, or a fraction 0.0 to 1.0")
        _require(self.window >= 2, self, "window", "at least 2")
        _require(self.threshold > 0, self, "threshold", "above 0")
        _require(0 <= self.guidance_floor <= self.guidance_boost, self, "guidance_floor", "from 0 to guidance_boost")
        _require(self.detection in ("local", "global"), self, "detection", "'local' or 'global'")
        anchors = ("auto", "none", "latents")
        _require(self.background_anchor in anchors, self, "background_anchor", f"one of {anchors}")
        _require(0 < self.strength <= 1, self, "strength", "above 0 and at most 1")
        _require(self.rows in ("batched", "sequential"), self, "rows", "'batched' or 'sequential'")

    @property
    def first_lock_step(self) -> int:
        """T - kappa, the step at which the schedules begin."""
        count = self.lock_steps
        steps = count if isinstance(count, int) else round(count * self.num_inference_steps)
        return self.num_inference_steps - steps

    @property
    def first_step(self) -> int:
        """The step that sampling starts at; above 0 where `strength` is below 1."""
        return self.num_inference_steps - max(1, round(self.strength * self.num_inference_steps))


METHODS: dict[str, dict[str, Any]] = {
    "kv-lock": {},
    "plain": dict(fusion_ratio=0.0, adaptive_guidance=False, unconditional_scale=False),
    "rigid": dict(fusion_ratio=1.0, adaptive_guidance=False, unconditional_scale=False),
    "fixed-0.5": dict(fusion_ratio=0.5, adaptive_guidance=False, unconditional_scale=False),
    "global": dict(detection="global"),
    "kv-only": dict(adaptive_guidance=False, unconditional_scale=False),
    "omega-only": dict(fusion_ratio=0.0, unconditional_scale=False),
    "s-only": dict(fusion_ratio=0.0, adaptive_guidance=False),
    "s-omega": dict(fusion_ratio=0.0),
    "paper-literal": dict(guidance_floor=0.0),
}
"""The paper's method, its ablation rows and its constant schedules: each is a few fields of KVLockConfig."""


def method_config(method: str, defaults: dict[str, Any], overrides: dict[str, Any]) -> KVLockConfig:
    """The config of `method` on a model with `defaults`; `overrides` win over both.

    Raises ValueError for an unknown method or field, or a value out of its range.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}")
    known = {f.name for f in fields(KVLockConfig)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(f"config field {unknown[0]!r} is unknown; expected one of {', '.join(sorted(known))}")
    return KVLockConfig(**{**defaults, **METHODS[method], **overrides})


def _require(holds: bool, config: KVLockConfig, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {getattr(config, name)!r}; expected {expected}")
