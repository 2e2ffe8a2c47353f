"""What is written is whole or absent: it waits under a hidden name beside its own until it is done.

Standard library alone, and the only copy of this in kvlock.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HIDDEN = ".kvlock-"  # what a killed process leaves behind begins with this


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when all went well and removed otherwise.

    A file of that name is replaced in one step; a symbolic link is replaced and not followed.
    Raises OSError where the folder cannot be written to.
    """
    path = Path(path)
    unfinished = _hidden(path.parent, path.suffix)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A folder to fill. When all went well its files are moved into `out` together, or none is.

    A new `out` appears in one step; its parent must exist. In an old one, files of the same names
    are replaced and others stay. Raises OSError where `out` is a file, where it holds a folder in
    the way of a file, or where it came into being and was filled by another process meanwhile.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; expected a folder, or a name that is free")
    is_new = not out.exists()
    unfinished = _hidden(out.absolute().parent if is_new else out)
    unfinished.mkdir()
    try:
        yield unfinished
        if is_new:
            _rename_new(unfinished, out)
        else:
            _move_into(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | Path, record: Any) -> None:
    """Write `record` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=1))


def _hidden(folder: Path, suffix: str = "") -> Path:
    return folder / f"{HIDDEN}{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _rename_new(folder: Path, out: Path) -> None:
    try:
        os.replace(folder, out)
    except OSError as error:
        if not out.exists():
            raise
        raise FileExistsError(
            f"{out} was made by another process meanwhile; write to another name"
        ) from error


def _move_into(folder: Path, out: Path) -> None:
    names = sorted(entry.name for entry in folder.iterdir())
    in_the_way = next((name for name in names if (out / name).is_dir()), None)
    if in_the_way is not None:
        raise IsADirectoryError(f"{out / in_the_way} is a folder; move it away or write elsewhere")
    for name in names:
        os.replace(folder / name, out / name)
