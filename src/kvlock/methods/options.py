"""A config as flat options by name, and as JSON: parts within parts. No torch here."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from kvlock.contract.options import COUNT, FRACTION, FROM_0, FROM_1, Part, option
from kvlock.contract.records import RecordError, typed
from kvlock.core.config import AdaptiveGuidance, Guidance, KVLockConfig, Lock, Signal, Source
from kvlock.methods.parts import APG, Calibration, Drop, Inject, Inversion


@dataclass(frozen=True)
class FlowEditConfig(Part):
    """FlowEdit (arXiv 2412.08629) as Wan-Edit of FiVE-Bench sets it, guidance relative to the model's.

    Raises ValueError for a value out of its range.
    """

    num_inference_steps: int = option(50, "denoising steps", COUNT)
    guidance_scale: float = option(5.0, "guidance of the source branch, the model's own", FROM_1)
    target_boost: float = option(
        2.4, "the target's guidance over the source's; Wan-Edit: 12 over 5", FROM_0
    )
    strength: float = option(
        0.82, "share of the steps that are made; Wan-Edit skips 9 of 50", FRACTION
    )
    num_noises: int = option(1, "fresh noises that each step averages over", COUNT)
    masked: bool = option(False, "only latents inside the mask move")
    drop: Drop | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop is None:
            return
        if not self.masked:
            raise ValueError(
                "masked is False; expected True with drop, which leaves the rest alone"
            )
        if self.drop.drop_steps != "all" or self.drop.source_refresh != 1:
            raise ValueError(
                f"drop_steps is {self.drop.drop_steps!r}, source_refresh {self.drop.source_refresh!r}; "
                "expected 'all' and 1 in FlowEdit, whose source has other noise in each step"
            )

    @property
    def first_step(self) -> int:
        """The step that the walk starts at."""
        return self.num_inference_steps - max(1, round(self.strength * self.num_inference_steps))


MethodConfig = KVLockConfig | FlowEditConfig

PARTS: dict[str, Any] = {
    "lock": Lock,
    "injection": Inject,
    "signal": Signal,
    "calibration": Calibration,
    "guidance": Guidance,
    "adaptive": AdaptiveGuidance,
    "projection": APG,
    "source": Source,
    "inversion": Inversion,
    "drop": Drop,
}
OPTIONS = {
    f.name: part for part, record in PARTS.items() for f in fields(record) if f.name not in PARTS
}
OPTIONS |= {name: "" for name in ("num_inference_steps", "lock_steps")}
"""Every option of KVLockConfig and the part that it belongs to."""


def flat(config: MethodConfig) -> dict[str, Any]:
    """Every option of the parts that are on, by name."""
    options: dict[str, Any] = {}
    for name, value in _children(config).items():
        if is_dataclass(value):
            options |= flat(value)  # type: ignore[arg-type]
        elif name not in PARTS:
            options[name] = value
    return options


def chosen_options(config: MethodConfig) -> dict[str, Any]:
    """What differs from the defaults; 1 and 1.0 do: one counts steps, the other is a share of them.

    A part that is off stands there as its name and None. An option that is added later does not
    make it another config.
    """
    chosen = {
        name: value
        for name, value in flat(config).items()
        if repr(value) != repr(_default(config, name))
    }
    on, usual = set(_parts(config)), set(_parts(type(config)()))
    return chosen | {name: None for name in usual - on} | {name: True for name in on - usual}


def with_options(config: MethodConfig, options: dict[str, Any]) -> MethodConfig:
    """The config with these options, which must be of parts that are on."""
    changes: dict[str, Any] = {}
    for name, value in _children(config).items():
        if is_dataclass(value):
            changes[name] = with_options(value, options)  # type: ignore[arg-type]
        elif name in options:
            changes[name] = options[name]
    return replace(config, **changes)


def config_to_dict(config: MethodConfig) -> dict[str, Any]:
    """As JSON has it: parts within parts, None where one is off."""
    return {
        name: config_to_dict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        for name, value in _children(config).items()
    }


def config_from_dict(kind: type, record: dict[str, Any]) -> Any:
    """The opposite, for a config class or a part. Raises ValueError, with the option, for what is none."""
    known = {f.name: f for f in fields(kind)}
    for name, field in known.items():  # what was added later is off, or at its default
        if name in PARTS and name not in record and field.default is not None:
            raise RecordError(f"{name} is missing; expected an object")
    values = {}
    for name, value in record.items():
        if name not in known:
            raise RecordError(f"option {name!r} is unknown; expected {', '.join(known)}")
        if name in PARTS:
            optional = "None" in str(known[name].type)
            given = typed(value, dict[str, Any] | None if optional else dict[str, Any], name)
            values[name] = given if given is None else config_from_dict(PARTS[name], given)
        else:
            values[name] = typed(value, known[name].type, name)
    return kind(**values)


def watches_variance(config: KVLockConfig) -> bool:
    """Whether anything hangs on the variance, and so on the threshold."""
    locks = config.lock is not None and config.lock.fusion_ratio == "variance"
    return locks or (config.guidance.adaptive is not None and config.guidance.guidance_scale > 1)


def _children(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)}


def _parts(config: Any) -> list[str]:
    """The names of the parts that are on."""
    found = []
    for name, value in _children(config).items():
        if is_dataclass(value):
            found += [name, *_parts(value)]
    return found


def _default(config: MethodConfig, name: str) -> Any:
    own = name in {f.name for f in fields(config)}
    record = type(config) if own else PARTS[OPTIONS[name]]
    return next(f.default for f in fields(record) if f.name == name)
