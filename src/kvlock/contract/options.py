"""Options with a range and a help text, in frozen records that hold to them. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Literal, get_args, get_origin

Steps = int | float  # a count of steps, or a fraction of N
Range = tuple[Callable[[Any], bool], str]  # what a value must be, and that in words
NUMBERS: dict[Any, Any] = {int: int, float: (int, float), Steps: (int, float)}

SHARE: Range = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
POSITIVE: Range = (lambda x: x > 0, "above 0")
FROM_0: Range = (lambda x: x >= 0, "0 or more")
FROM_1: Range = (lambda x: x >= 1, "1 or more")
FINITE: Range = (isfinite, "a number")
FRACTION: Range = (lambda x: 0 < x <= 1, "above 0 and at most 1")
STEPS: Range = (
    lambda x: x >= 0 and (isinstance(x, int) or x <= 1),
    "a count from 0, or a fraction 0.0 to 1.0",
)


def option(default: Any, help: str, allowed: Range | None = None) -> Any:
    """A field with its range and the help that the command line shows."""
    return field(default=default, metadata={"help": help, "allowed": allowed})


def require(holds: bool, part: Any, name: str, expected: str) -> None:
    """Raise ValueError, with the value and what was expected, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} is {getattr(part, name)!r}; expected {expected}")


@dataclass(frozen=True)
class Part:
    """Options that hold their ranges; ValueError for one that does not."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, allowed = getattr(self, f.name), f.metadata.get("allowed")
            if get_origin(f.type) is Literal:
                names = get_args(f.type)
                require(value in names, self, f.name, f"one of {', '.join(names)}")
            elif f.type is bool:
                require(isinstance(value, bool), self, f.name, "True or False")
            elif allowed:
                sound = isinstance(value, NUMBERS.get(f.type, object)) and allowed[0](value)
                whole = "a whole number, " if f.type is int else ""
                require(sound, self, f.name, whole + allowed[1])
