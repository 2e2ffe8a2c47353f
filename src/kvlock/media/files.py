"""What is written is whole or absent: it waits under a hidden name beside its own until it is done.

Whoever writes holds a lock on a hidden file. The system lets go of it when the writer dies, however
it dies, so that a rest is known from what is being written. Standard library alone.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

HIDDEN = ".kvlock-"  # what a killed process leaves behind begins with this


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when all went well and removed otherwise.

    A file of that name is replaced in one step; a symbolic link is replaced and not followed. What
    killed writers left in the folder goes. Raises OSError where the folder cannot be written to.
    """
    path = Path(path)
    _remove_rests(path.parent)
    unfinished, mark = _new_hidden(path.parent, path.suffix)
    with mark:
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | Path, record: Any) -> None:
    """Write `record` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=1))


def hold(path: Path) -> TextIO | None:
    """The file, made if need be, ours until it is closed; None where a process that lives has it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            pass  # a disk that knows no locks
        if _stands_for(path, file):
            return file
        file.close()  # removed between the two


def hold_rest(path: Path) -> TextIO | None:
    """As `hold`, for a file that is to be removed: None, too, where it is another user's."""
    try:
        return hold(path)
    except OSError:
        return None


def _stands_for(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _new_hidden(folder: Path, suffix: str) -> tuple[Path, TextIO]:
    while True:
        path = folder / f"{HIDDEN}{os.getpid()}-{secrets.token_hex(4)}{suffix}"
        mark = hold(path)
        if mark:
            return path, mark


def _remove_rests(folder: Path) -> None:
    for rest in folder.glob(f"{HIDDEN}[0-9]*-*"):
        if rest.is_file() and (mark := hold_rest(rest)):
            rest.unlink(missing_ok=True)
            mark.close()
