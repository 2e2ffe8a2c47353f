"""One process at a time makes what is to stand under a name; a dead one's rest is known as such.

The working folder is hidden: inside OUT where that is a folder already, else beside it. Its owner
holds a lock on a file in it, which the system lets go of when the owner dies, however it dies.
"""

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from kvlock.media.files import HIDDEN, hold, hold_rest

OWNER = "owner"
INSIDE = f"{HIDDEN}work"
YOUNG = 60.0  # seconds; a folder of that age may be about to be held


def working_folder(out: Path) -> Path:
    """The same for every spelling of a path; one beside `out` counts when `out` is there since, too."""
    name = hashlib.sha256(os.fsencode(out.absolute().name)).hexdigest()[:16]  # fits every disk
    beside = out.absolute().parent / f"{HIDDEN}{name}"
    return out / INSIDE if out.is_dir() and not beside.is_dir() else beside


@contextmanager
def claimed(out: Path, kept: str) -> Iterator[Path]:
    """A working folder for `out` that is ours alone to the end of the block, and then gone.

    Where the block fails, the file `kept` in it stays, if there is one, and so does the folder; the
    next claim finds it there, and nothing else. Raises ValueError where a process that lives has it.
    """
    folder = working_folder(out)
    _remove_dead(folder.parent, kept)
    owner = _owned(folder, out)
    try:
        _clear(folder, kept)
        yield folder
        _clear(folder)
    finally:
        _clear(folder, kept)
        if not (folder / kept).exists():
            _remove(folder)
        owner.close()


def publish(made: Path, out: Path, overwrite: bool) -> None:
    """Move a file, or what a folder holds, to `out`: a new one in one step, an old one file by file.

    Where `overwrite`, files of the same names are replaced; others stay. Raises FileExistsError,
    with `out` as it was, where something is in the way.
    """
    if not out.exists():
        os.replace(made, out)
        return
    files = [made] if made.is_file() else sorted(p for p in made.rglob("*") if not p.is_dir())
    targets = {file: out / file.relative_to(made) for file in files}
    blocked = in_the_way(out, list(targets.values()))
    if not overwrite:
        blocked = blocked or next((t for t in targets.values() if t.exists()), None)
    if blocked:
        raise FileExistsError(f"{blocked} is in the way; move it, or add --overwrite")
    for file, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)


def in_the_way(out: Path, files: list[Path]) -> Path | None:
    """The folder where one of `files`, in or at `out`, is to stand, or the file where its folder is."""
    for file in files:
        if file.is_dir():
            return file
        between = [folder for folder in file.parents if folder.is_relative_to(out)]
        blocked = next((f for f in between if f.exists() and not f.is_dir()), None)
        if blocked:
            return blocked
    return None


def _owned(folder: Path, out: Path) -> TextIO:
    """The owner's file, held until it is closed. Raises ValueError where it is another's."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = hold(folder / OWNER)
            owner = "" if file else (folder / OWNER).read_text(encoding="utf-8")
        except FileNotFoundError:  # its last owner removed the folder just now
            continue
        if file is None:
            raise ValueError(
                f"{out} is being written by {owner or 'another process'}; give another name"
            )
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.flush()
        return file


def _remove_dead(parent: Path, kept: str) -> None:
    """Remove the working folders of dead processes that kept nothing, whatever they were made for."""
    for mark in parent.glob(f"{HIDDEN}*/{OWNER}"):
        if not (mark.parent / kept).exists() and _is_old(mark) and (owner := hold_rest(mark)):
            _clear(mark.parent)
            _remove(mark.parent)
            owner.close()


def _is_old(mark: Path) -> bool:
    try:
        return time.time() - mark.stat().st_mtime > YOUNG
    except FileNotFoundError:  # its owner removed it just now
        return False


def _clear(folder: Path, kept: str = "") -> None:
    """Remove all but the owner's file and what is kept."""
    for entry in folder.glob("*"):  # nothing where somebody removed the folder
        if entry.name in (OWNER, kept):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove an empty folder of ours. The owner's file goes last: from then on it may be another's."""
    with suppress(OSError):
        (folder / OWNER).unlink()
        folder.rmdir()
