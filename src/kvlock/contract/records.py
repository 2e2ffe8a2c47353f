"""JSON files as what they should hold: one reader, and one sentence where they hold something else.

What a file should hold is said by type hints: text, numbers, lists, tuples, dicts, TypedDicts,
Literals and unions of them. No torch here.
"""

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

SHOWN = 60  # letters of a wrong value
PLAIN: dict[Any, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    NoneType: (NoneType, "null"),
}  # a kind as Python's types, and in words


class RecordError(ValueError):
    """A value that is not what it should be; the message names the field and what is there."""


def read_json(path: str | Path, kind: Any, remedy: str) -> Any:
    """What a JSON file holds, which is of `kind`; `remedy` ends the message where it is not.

    Raises RecordError for a file that is not there, is no JSON, or holds something else.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a FIFO would be waited for
            is_there = path.exists()
            raise RecordError("it is no file of data" if is_there else "there is no such file")
        return typed(json.loads(path.read_bytes()), kind)
    except OSError as error:
        said = f"it cannot be read, {(error.strerror or type(error).__name__).lower()}"
    except RecordError as error:
        said = str(error)
    except (ValueError, RecursionError):
        size = path.stat().st_size
        said = f"its {size} bytes are no JSON, or not all of it" if size else "the file is empty"
    raise RecordError(f"{path}: {said}; {remedy}")


def typed(value: Any, kind: Any, field: str = "") -> Any:
    """`value`, as JSON has it, where it is of `kind`; a list becomes a tuple where that is asked.

    Raises RecordError with the field, what was found and what was expected.
    """
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(value, kind, field)
    if origin is Literal:
        _require(any(repr(value) == repr(one) for one in inner), value, kind, field)
        return value
    if origin in (list, tuple):
        _require(isinstance(value, list), value, kind, field)
        return _sequence(value, origin, inner, field)
    if origin is dict or is_typeddict(kind):
        _require(isinstance(value, dict), value, kind, field)
        return _object(value, kind, field)
    is_number = isinstance(value, bool) and kind is not bool  # a bool is an int to Python
    _require(isinstance(value, PLAIN.get(kind, ((), ""))[0]) and not is_number, value, kind, field)
    return value


def _one_of(value: Any, kind: Any, field: str) -> Any:
    """The error of a union is that of the member that the value comes nearest to."""
    errors = []
    for one in get_args(kind):
        try:
            return typed(value, one, field)
        except RecordError as error:
            if isinstance(value, (list, dict)) and _words(one) == _words(type(value)):
                errors.append(error)
    if errors:
        raise errors[0]
    raise _error(value, kind, field)


def _sequence(value: list, origin: Any, inner: tuple, field: str) -> Any:
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            expected = f"expected {len(inner)}"
            raise RecordError(f"{field or 'the whole'} has {len(value)} entries; {expected}")
        kinds = list(inner)
    else:
        kinds = [inner[0] if inner else Any] * len(value)
    return origin(typed(v, k, f"{field}[{i}]") for i, (v, k) in enumerate(zip(value, kinds)))


def _object(value: dict[str, Any], kind: Any, field: str) -> dict[str, Any]:
    prefix = f"{field}." if field else ""
    if not is_typeddict(kind):
        of = (*get_args(kind), Any, Any)[1]
        return {name: typed(one, of, prefix + name) for name, one in value.items()}
    hints = get_type_hints(kind)
    for name in hints:
        if name in kind.__required_keys__ and name not in value:
            raise RecordError(f"{prefix}{name} is missing; expected {_words(hints[name])}")
    known = [name for name in hints if name in value]
    return value | {name: typed(value[name], hints[name], prefix + name) for name in known}


def _require(holds: bool, value: Any, kind: Any, field: str) -> None:
    if not holds:
        raise _error(value, kind, field)


def _error(value: Any, kind: Any, field: str) -> RecordError:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return RecordError(f"{field or 'the whole'} is {shown}; expected {_words(kind)}")


def _words(kind: Any) -> str:
    """A kind as people say it; "" for what no JSON holds."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(w for one in inner if (w := _words(one))))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (list, tuple):
        return "a list"
    if origin is dict or is_typeddict(kind):
        return "an object"
    return PLAIN.get(kind, ((), "anything" if kind is Any else ""))[1]
