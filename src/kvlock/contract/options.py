"""Options with a range and a help text, in frozen records that hold to them. No torch here."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

Steps = int | float  # a count of steps, or a fraction of N
Range = tuple[Callable[[Any], bool], str]  # what a value must be, and that in words
NUMBERS: dict[Any, Any] = {int: int, float: (int, float), Steps: (int, float)}

MOST_STEPS = 1000  # what the models were trained on
LARGEST = 1e6  # float32 holds the products of such numbers

SHARE: Range = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
POSITIVE: Range = (lambda x: 1 / LARGEST**2 <= x <= LARGEST, f"above 0, at most {LARGEST:g}")
FROM_0: Range = (lambda x: 0 <= x <= LARGEST, f"0 or more, at most {LARGEST:g}")
FROM_1: Range = (lambda x: 1 <= x <= LARGEST, f"1 or more, at most {LARGEST:g}")
COUNT: Range = (lambda x: 1 <= x <= MOST_STEPS, f"1 to {MOST_STEPS}")
FINITE: Range = (lambda x: abs(x) <= LARGEST, f"a number, at most {LARGEST:g} either way")
FRACTION: Range = (lambda x: 0 < x <= 1, "above 0 and at most 1")
STEPS: Range = (
    lambda x: 0 <= x <= (MOST_STEPS if isinstance(x, int) else 1),
    "a count from 0, or a fraction 0.0 to 1.0",
)


def option(default: Any, help: str, allowed: Range | None = None) -> Any:
    """A field with its range and the help that the command line shows."""
    return field(default=default, metadata={"help": help, "allowed": allowed})


def meant(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is unknown: the one that is near, or all that there are."""
    names = list(names)
    near = difflib.get_close_matches(name.lower(), names, 1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"


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
