"""Every option of every method as flags: what is not given is the model's or the method's own."""

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

from kvlock.cli.groups import advanced
from kvlock.core.config import Guidance, KVLockConfig
from kvlock.methods.options import OPTIONS, PARTS, FlowEditConfig

SHOWN = ("num_inference_steps", "guidance_scale")  # of a method's options, in the short help


def method_options(first: list[Any]) -> type:
    """A group of `first`, --steps, --guidance-scale, and every other option, which are advanced."""
    columns = first + [_option_column(name) for name in option_fields()]
    made = dataclasses.make_dataclass("MethodOptions", columns, frozen=True)
    made.__doc__ = "How the edit is made."
    return made


def option_fields() -> dict[str, dataclasses.Field]:
    """Every option of every method, by name, in the order of the parts; the guidance comes first."""
    found = {}
    for record in (KVLockConfig, Guidance, *PARTS.values(), FlowEditConfig):
        for f in dataclasses.fields(record):
            if f.metadata.get("help"):
                found.setdefault(f.name, f)
    return found


def _option_column(name: str) -> tuple[str, Any, Any]:
    f = option_fields()[name]
    part = OPTIONS.get(name, "flowedit")
    always = part in ("", "lock", "signal", "guidance", "adaptive", "source")
    default = f"kv-lock: {f.default}" if always else f"where {part or 'it'} is on: {f.default}"
    words = f"{f.metadata['help']} ({default})"
    flag = {"num_inference_steps": "steps"}.get(name, name.replace("_", "-"))
    shown = tyro.conf.arg(name=flag, help=words, help_behavior_hint="", metavar=_metavar(f.type))
    kind = Annotated[f.type | None, shown]  # type: ignore[operator]
    if name not in SHOWN:
        kind = advanced(kind)
    return name, kind, field(default=None)


def _metavar(kind: Any) -> str:
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return "|".join(choices)
    numbers = {int: "INT", float: "FLOAT", bool: "True|False", int | float: "COUNT|FRACTION"}
    return numbers.get(kind, "VALUE")
