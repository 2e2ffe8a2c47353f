"""A model folder's files, read before any library reads them: what is broken is named in a sentence.

Configs hold what their classes take, by the classes' own signatures; safetensors are whole.
"""

import inspect
import json
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints

from kvlock.contract.records import RecordError, read_json, typed

REMEDY = "expected a diffusers folder, so download it again"
LFS = b"version https://git-lfs"
MOST_HEADER = 100_000_000  # bytes, as in the safetensors library


class _Tensor(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    return read_json(path, dict[str, Any], REMEDY)


def check_config(path: Path, cls: type) -> dict[str, Any]:
    """The config of a part of that class. Raises ValueError where a field is not what it takes."""
    config, hints = read_object(path), get_type_hints(cls.__init__)
    parameters = inspect.signature(cls.__init__).parameters
    for name in sorted(set(config) & set(parameters) & set(hints)):
        if config[name] != parameters[name].default:
            try:
                typed(config[name], _any_length(hints[name]), name)
            except RecordError as error:
                raise RecordError(f"{path}: {error}; {REMEDY}") from None
    return config


def _any_length(hint: Any) -> Any:
    """The hint as diffusers means it: where it writes `tuple[int]` it takes any number of them."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_any_length, arguments))]  # noqa: UP007
    if get_origin(hint) is tuple and len(arguments) == 1:
        return tuple[arguments[0], ...]  # type: ignore[valid-type]
    return hint


def check_safetensors(path: Path) -> None:
    """Raise ValueError unless the file is whole, by its own header; its tensors are not read."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS))
        length = int.from_bytes(start[:8], "little")
        file.seek(8)
        header = file.read(length) if size >= 8 and length <= min(size - 8, MOST_HEADER) else b""
    if not size:
        raise ValueError(f"{path} is empty; download it again")
    if start == LFS:
        raise ValueError(f"{path} is a git-lfs pointer and not the weights; type git lfs pull")
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        entries = typed(tensors, dict[str, _Tensor])
    except (ValueError, RecursionError, AttributeError):
        found = f"its {size} bytes are no safetensors file, or the beginning of one"
        raise ValueError(f"{path}: {found}; download it again") from None
    end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size != end:
        raise ValueError(f"{path} has {size} bytes, its header says {end}; download it again")
