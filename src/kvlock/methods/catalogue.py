"""Every method by name: the paper's, its ablation rows, and the baselines. No torch here."""

from dataclasses import replace
from typing import Any

from kvlock.contract.options import meant
from kvlock.core.config import AdaptiveGuidance, Guidance, KVLockConfig, Lock, Signal, Source
from kvlock.methods.options import (
    OPTIONS,
    FlowEditConfig,
    MethodConfig,
    chosen_options,
    flat,
    watches_variance,
    with_options,
)
from kvlock.methods.parts import APG, Calibration, Drop, Inject, Inversion

COMPOSITE = (
    "+composite"  # at the end of a method's name: the source's pixels pasted back outside the mask
)


CFG = Guidance(adaptive=None, unconditional_scale=False)
RESCALED = Guidance(adaptive=None)
ADAPTIVE = Guidance(unconditional_scale=False)
UNTIED = Source(background_anchor="none")
ANCHORED = Source(background_anchor="latents")
PLAIN = KVLockConfig(lock=None, guidance=CFG, source=UNTIED)
RIGID = KVLockConfig(lock=Lock(1.0), guidance=CFG)
FADING = KVLockConfig(lock_steps=1.0, guidance=CFG)
PROJECTED = replace(CFG, projection=APG())
# What the calibrated methods do on average, without looking (docs/evidence.md).
STEADY = KVLockConfig(
    lock_steps=0.7, lock=None, guidance=replace(PROJECTED, lock_guidance=0.85), source=ANCHORED
)
CALIBRATED_SIGNAL = Signal(1 / 6, 1.0, prediction="conditional", calibration=Calibration())
CAREFUL = AdaptiveGuidance(1 / 3, 1.0, guidance_response="lower")
CALIBRATED_LOCK = KVLockConfig(
    lock_steps=0.7,
    signal=CALIBRATED_SIGNAL,
    guidance=replace(PROJECTED, adaptive=CAREFUL),
    source=ANCHORED,
)
SPATIAL = replace(CALIBRATED_SIGNAL, calibration=Calibration(lock_width=1.5))
FAST = replace(STEADY.guidance, guidance_interval=(0.5, 1.0))
PROEDIT = KVLockConfig(
    lock_steps=1.0,
    lock=Lock(1.0, Inject(1 / 3, foreground_ratio=0.1)),
    guidance=CFG,
    source=replace(UNTIED, inversion=Inversion(0.25)),
)


def _fading(fade: Any) -> KVLockConfig:
    return replace(FADING, lock=Lock(1.0, Inject(4 / 15, fade)))


METHODS: dict[str, MethodConfig] = {
    "kv-lock": KVLockConfig(),
    "plain": PLAIN,
    "rigid": RIGID,
    "fixed-0.5": replace(RIGID, lock=Lock(0.5)),
    "global": KVLockConfig(signal=Signal(detection="global")),
    "kv-only": KVLockConfig(guidance=CFG),
    "omega-only": KVLockConfig(lock=None, guidance=ADAPTIVE),
    "s-only": KVLockConfig(lock=None, guidance=RESCALED),
    "s-omega": KVLockConfig(lock=None),
    "paper-literal": KVLockConfig(guidance=Guidance(adaptive=AdaptiveGuidance(0.0))),
    "omega-min-1": KVLockConfig(
        guidance=Guidance(adaptive=AdaptiveGuidance(0.0, guidance_minimum=1.0))
    ),
    "progressive": _fading("sigmoid"),
    "progressive-cosine": _fading("cosine"),
    "progressive-linear": _fading("linear"),
    "cfg-zero-star": replace(PLAIN, guidance=replace(RESCALED, zero_init_steps=0.04)),
    "apg": replace(PLAIN, lock_steps=1.0, guidance=PROJECTED),
    "apg-blend": replace(PLAIN, lock_steps=1.0, guidance=PROJECTED, source=ANCHORED),
    "calibrated": CALIBRATED_LOCK,
    "calibrated-spatial": replace(CALIBRATED_LOCK, signal=SPATIAL),
    "calibrated-omega": replace(CALIBRATED_LOCK, lock=None),
    "constant": replace(STEADY, lock=Lock(0.8)),
    "constant-omega": STEADY,
    "drop-locked": replace(STEADY, lock=Lock(1.0), drop=Drop("locked")),
    "drop": replace(STEADY, drop=Drop()),
    "drop-2": replace(STEADY, drop=Drop(source_refresh=2)),
    "drop-4": replace(STEADY, drop=Drop(source_refresh=4)),
    "drop-context": replace(STEADY, drop=Drop(source_refresh=2, background_context=0.4)),
    "fast": replace(STEADY, drop=Drop(source_refresh=0.25, background_context=0.7), guidance=FAST),
    "proedit": PROEDIT,
    "flowedit": FlowEditConfig(),
    "flowedit-masked": FlowEditConfig(masked=True),
    "flowedit-drop": FlowEditConfig(masked=True, drop=Drop()),
    "sdedit": replace(PLAIN, source=replace(UNTIED, strength=0.8)),
    "latent-blend": replace(PLAIN, source=ANCHORED),
    "vace": PLAIN,
}
"""`vace` is plain sampling and needs a VACE model (`check_model`); the calibrated ones also need
what is usual for the model (`kvlock calibrate`)."""

CALIBRATED = ("calibrated", "calibrated-spatial", "calibrated-omega")


def method_named(method: str) -> MethodConfig:
    """The method's config. Raises ValueError for an unknown method, with those that are near."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; {meant(method, METHODS)}")
    return METHODS[method]


def method_config(method: str, defaults: dict[str, Any], overrides: dict[str, Any]) -> MethodConfig:
    """The config of `method` on a model with `defaults`; `overrides` win over both.

    Both are options by name. Raises ValueError for an unknown method or option, a value out of its
    range, an option that the method passes over, or a calibrated method without `usual`.
    """
    config = method_named(method)
    own, mine = flat(config), own_options(method)
    unknown = sorted(set(overrides) - set(own))
    if unknown:
        raise ValueError(_no_such_option(method, unknown[0], own))
    usable = {name: value for name, value in defaults.items() if name in own and name not in mine}
    config = with_options(config, usable | overrides)
    for name in overrides:
        _check_used(config, method, name)
    if method in CALIBRATED and not flat(config)["usual"]:
        raise ValueError(
            f"{method} needs the model's calibration; type kvlock calibrate MODEL --suite CLIPS.jsonl first"
        )
    return config


def own_options(method: str) -> dict[str, Any]:
    """The options that make the method what it is: those that differ from the paper's."""
    return chosen_options(method_named(method))


def check_model(method: str, takes_control: bool) -> None:
    """Raise ValueError where `method` is a model's name and this is not that model."""
    if method == "vace" and not takes_control:
        raise ValueError(
            "method 'vace' is the VACE model alone; use it with a VACE model, or 'plain' with this one"
        )


def _no_such_option(method: str, name: str, own: dict[str, Any]) -> str:
    if name in OPTIONS:
        part = OPTIONS[name] or "such option"
        return f"{name} has no effect with {method}, which has no {part}; leave it out or take another method"
    return f"{method} has no option {name!r}; {meant(name, sorted(own))}"


def usable_options(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that a method takes and does not set itself: its own make it that method."""
    config, mine = method_named(method), own_options(method)
    free = set(flat(config)) - set(mine)
    return {n: v for n, v in options.items() if n in free and not _idle_because(config, n)}


def _check_used(config: MethodConfig, method: str, name: str) -> None:
    """Raise ValueError for an option that the rest of the config passes over."""
    reason = _idle_because(config, name)
    if reason:
        raise ValueError(f"{name} has no effect with {method}: {reason}; leave it out")


def _idle_because(config: MethodConfig, name: str) -> str:
    """Why an option of a part that is on does nothing; empty where it does something."""
    unguided = "guidance is off, at --guidance-scale 1"
    if not isinstance(config, KVLockConfig):
        return unguided if name == "target_boost" and config.guidance_scale == 1 else ""
    guidance, follows = config.guidance, config.lock and config.lock.fusion_ratio == "variance"
    guides = OPTIONS[name] in ("guidance", "adaptive", "projection")
    guides = guides and name not in ("guidance_scale", "zero_init_steps")
    same = name == "prediction" and not guidance.zero_init_steps
    if guidance.guidance_scale == 1 and (guides or same):
        return unguided
    if name == "threshold" and not watches_variance(config):
        return "nothing in it hangs on the variance"
    if name == "lock_width" and not follows:
        return "no lock in it follows the variance"
    if name == "lock_guidance" and guidance.adaptive:
        return "its guidance follows the variance"
    if name == "lock_steps" and not (config.lock or _changes_guidance(guidance)):
        return "it does nothing else in the lock steps"
    return ""


def _changes_guidance(guidance: Guidance) -> bool:
    """Whether guidance is another in the lock steps."""
    other = guidance.adaptive or guidance.projection or guidance.lock_guidance != 1
    return bool(other) and guidance.guidance_scale > 1
