"""Jobs over one folder: each done once, by whichever process comes first, and written whole or not
at all.

OUT/results/JOB/    result.json and what else the job left; it is there only when it is complete
OUT/leases/JOB      who works on the batch that begins with JOB; its age says whether they still do

A job is an id, which is the name of its folder, and a record. A batch is a list of jobs that one
process does together. It is claimed, and done again where a result of it was lost, as a whole: what
stands beside a clip in a forward changes the clip's last bits.
"""

import fcntl
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvlock.contract.records import read_json

BEAT = 30.0  # seconds between two signs of life of a lease's owner
STALE_AFTER = 600.0  # seconds without one, after which a lease is free
RESULT = "result.json"


class JobFolder:
    """The folder that several processes, on one machine or on many, share.

    `kind` is what a record is, as `read_json` takes it. Raises ValueError where a link in the
    folder leads out of it.
    """

    def __init__(self, out: Path, kind: Any = dict):
        self.out, self.results, self._leases = out, out / "results", out / "leases"
        self._kind, self._known = kind, set[str]()
        for folder in (self.results, self._leases):
            make_inside(out, folder)
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"

    def is_done(self, job: str) -> bool:
        """Whether its result is there, and whole."""
        path = self.results / job / RESULT
        if job not in self._known and path.exists() and not self.damage(job):
            self._known.add(job)
        return job in self._known and path.exists()

    def damage(self, job: str) -> str:
        """What is wrong with a result that is there; "" for a whole one and for none."""
        path = self.results / job / RESULT
        try:
            if path.exists():
                read_json(path, self._kind, "it is made again")
        except ValueError as error:
            return str(error)
        return ""

    @contextmanager
    def claimed(self, batch: Sequence[str]) -> Iterator[bool]:
        """Take the batch and hold it, with signs of life, to the end of the block.

        Gives False where all of it is done or another process works on it: of several callers
        exactly one gets True.
        """
        if not self._claim(batch):
            yield False
            return
        done = threading.Event()
        lease = self._leases / batch[0]
        beat = threading.Thread(target=self._beat, args=(lease, done), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            done.set()
            beat.join()
            with self.locked():
                if _owner(lease) == self._me:
                    lease.unlink()

    @contextmanager
    def writing(self, job: str, record: dict[str, Any]) -> Iterator[Path]:
        """A folder to fill; with `record` it becomes the job's result when all went well, and goes
        otherwise.

        A result that is there already stays: the first one counts.
        """
        unfinished = self.results / f".{job}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            (unfinished / RESULT).write_text(json.dumps(record, indent=1))
            with self.locked():
                if not self.is_done(job):
                    shutil.rmtree(
                        self.results / job, ignore_errors=True
                    )  # the rest of a damaged one
                    os.replace(unfinished, self.results / job)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process of the folder is in such a block at the same time."""
        with (self._leases / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _claim(self, batch: Sequence[str]) -> bool:
        if all(map(self.is_done, batch)):
            return False
        with self.locked():
            lease = self._leases / batch[0]
            if all(map(self.is_done, batch)) or not _is_free(lease):
                return False
            lease.write_text(self._me)
            return True

    def _beat(self, lease: Path, done: threading.Event) -> None:
        while not done.wait(BEAT):
            if _owner(lease) == self._me:
                os.utime(lease)


def read_records(out: Path, kind: Any, remedy: str) -> dict[str, Any]:
    """The record of every job that is done under `out`, by the job's id in alphabetical order;
    writes nothing. Raises ValueError for one that is not of `kind`, with what mends it.
    """
    paths = sorted((out / "results").glob(f"[!.]*/{RESULT}"))
    return {path.parent.name: read_json(path, kind, remedy) for path in paths}


def make_inside(out: Path, folder: Path) -> None:
    """Make `folder`. Raises ValueError where a symbolic link in `out` leads it out of there."""
    if not folder.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"{folder} leads out of {out}, to {folder.resolve()}; remove that link, or write elsewhere"
        )
    folder.mkdir(parents=True, exist_ok=True)


def _is_free(lease: Path) -> bool:
    owner = _owner(lease)
    if owner is None:
        return True
    host, pid, *_ = [*owner.split(":"), ""]
    dead = host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid))
    return dead or time.time() - lease.stat().st_mtime > STALE_AFTER


def _owner(lease: Path) -> str | None:
    return lease.read_text() if lease.exists() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
