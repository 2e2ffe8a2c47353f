"""Every method by name: the paper's, its ablation rows, and the baselines. No torch here."""

from dataclasses import dataclass, fields
from typing import Any

from kvlock.core.config import KVLockConfig

COMPOSITE = "+composite"  # a method's name with this at its end: the source's pixels pasted back outside the mask


@dataclass(frozen=True)
class FlowEditConfig:
    """FlowEdit (arXiv 2412.08629) with the settings of Wan-Edit in FiVE-Bench, guidance relative to the model's own.

    `guidance_scale` is the model's omega_0 and guides the source branch; the target's is `target_boost` times that
    (Wan-Edit: 5 and 12). `strength` is the share of the steps that are made (Wan-Edit skips 9 of 50).
    Each step averages over `num_noises` fresh noises. `masked` lets only the latents inside the mask move.
    Raises ValueError for a value out of its range.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    target_boost: float = 2.4
    strength: float = 0.82
    num_noises: int = 1
    masked: bool = False

    def __post_init__(self) -> None:
        limits = {"num_inference_steps": 1, "guidance_scale": 1, "target_boost": 0, "num_noises": 1}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {least} or more")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength!r}; expected above 0 and at most 1")

    @property
    def first_step(self) -> int:
        """The step that the walk starts at."""
        return self.num_inference_steps - max(1, round(self.strength * self.num_inference_steps))


MethodConfig = KVLockConfig | FlowEditConfig

_FREE: dict[str, Any] = dict(fusion_ratio=0.0, adaptive_guidance=False, unconditional_scale=False)
_UNTIED: dict[str, Any] = dict(_FREE, background_anchor="none")
_LATE: dict[str, Any] = dict(lock_steps=0.7, guidance="apg", unconditional_scale=False, background_anchor="latents")
_STEADY: dict[str, Any] = dict(_LATE, guidance_floor=0.85, guidance_boost=0.85)  # the calibrated ones' own mean
_CALIBRATED: dict[str, Any] = dict(
    _LATE,
    signal="conditional",
    window=1 / 6,
    threshold=1.0,
    guidance_response="lower",
    guidance_floor=1 / 3,
    guidance_boost=1.0,
)
_DROP: dict[str, Any] = dict(_STEADY, fusion_ratio=1.0, drop_background="all")
_ADAEDIT: dict[str, Any] = dict(
    adaptive_guidance=False, unconditional_scale=False, lock_steps=1.0, inject_steps=4 / 15
)

METHODS: dict[str, dict[str, Any]] = {
    "kv-lock": {},
    "plain": _UNTIED,
    "rigid": dict(_FREE, fusion_ratio=1.0),
    "fixed-0.5": dict(_FREE, fusion_ratio=0.5),
    "global": dict(detection="global"),
    "kv-only": dict(adaptive_guidance=False, unconditional_scale=False),
    "omega-only": dict(fusion_ratio=0.0, unconditional_scale=False),
    "s-only": dict(fusion_ratio=0.0, adaptive_guidance=False),
    "s-omega": dict(fusion_ratio=0.0),
    "paper-literal": dict(guidance_floor=0.0),
    "omega-min-1": dict(guidance_floor=0.0, guidance_minimum=1.0),
    "progressive": dict(_ADAEDIT, fusion_ratio="sigmoid"),
    "progressive-cosine": dict(_ADAEDIT, fusion_ratio="cosine"),
    "progressive-linear": dict(_ADAEDIT, fusion_ratio="linear"),
    "cfg-zero-star": dict(_UNTIED, unconditional_scale=True, zero_init_steps=0.04),
    "apg": dict(_UNTIED, guidance="apg", lock_steps=1.0),
    "apg-blend": dict(_FREE, background_anchor="latents", guidance="apg", lock_steps=1.0),
    "calibrated": _CALIBRATED,
    "calibrated-spatial": dict(_CALIBRATED, lock_width=1.5),
    "calibrated-omega": dict(_CALIBRATED, fusion_ratio=0.0),
    "constant": dict(_STEADY, fusion_ratio=0.8),
    "constant-omega": dict(_STEADY, fusion_ratio=0.0),
    "drop-locked": dict(_STEADY, drop_background="locked", fusion_ratio=1.0),
    "drop": _DROP,
    "drop-2": dict(_DROP, source_refresh=2),
    "drop-4": dict(_DROP, source_refresh=4),
    "drop-context": dict(_DROP, source_refresh=2, background_context=0.4),
    "fast": dict(_DROP, source_refresh=0.25, background_context=0.7, guidance_interval=(0.5, 1.0)),
    "proedit": dict(
        _UNTIED,
        fusion_ratio=1.0,
        foreground_ratio=0.1,
        lock_steps=1.0,
        inject_steps=1 / 3,
        source_path="inverted",
        latents_shift=0.25,
    ),
    "flowedit": {},
    "flowedit-masked": dict(masked=True),
    "sdedit": dict(_UNTIED, strength=0.8),
    "latent-blend": dict(_FREE, background_anchor="latents"),
    "vace": _UNTIED,
}
"""What each method sets of its config's fields; `vace` is plain sampling and needs a VACE model (`check_model`).

The calibrated ones also need what is usual for the model (`kvlock calibrate`).
"""

# The fastest that loses nothing measurable (docs/speed.md); no signal earned its place (docs/evidence.md). On a
# text-to-video base dropping costs 0.2 to 0.3 dB of background.
DEFAULT_METHODS = {"wan-vace": "fast", "wan": "constant"}
CALIBRATED = ("calibrated", "calibrated-spatial", "calibrated-omega")

_OTHER_CONFIGS = {"flowedit": FlowEditConfig, "flowedit-masked": FlowEditConfig}


def config_class(method: str) -> type[MethodConfig]:
    """The config that `method` has. Raises ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}")
    return _OTHER_CONFIGS.get(method, KVLockConfig)


def method_config(method: str, defaults: dict[str, Any], overrides: dict[str, Any]) -> MethodConfig:
    """The config of `method` on a model with `defaults`; `overrides` win over both.

    Raises ValueError for an unknown method or field, a value out of its range, or a calibrated method without `usual`.
    """
    config = config_class(method)
    known = {f.name for f in fields(config)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(f"{method} has no config field {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    own = {name: value for name, value in defaults.items() if name in known}
    if method in CALIBRATED and not (overrides.get("usual") or own.get("usual")):
        raise ValueError(
            f"{method} needs the model's calibration; type kvlock calibrate MODEL --suite CLIPS.jsonl first"
        )
    return config(**{**own, **METHODS[method], **overrides})


def check_model(method: str, is_vace: bool) -> None:
    """Raise ValueError where `method` is a model's name and this is not that model."""
    if method == "vace" and not is_vace:
        raise ValueError("method 'vace' is the VACE model alone; use it with a VACE model, or 'plain' with this one")
