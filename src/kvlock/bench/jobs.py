"""Jobs over one folder: each done once, by whichever process comes first, and written whole or not at all.

OUT/results/JOB/    result.json and what else the job left; it is there only when it is complete
OUT/leases/JOB      who is at the batch that begins with JOB; its age tells whether they still are

A batch is what runs in one forward. It is taken, and run again where a result of it was lost, as a whole: what stands
beside a clip in a batch moves its last bits.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kvlock.methods.table import MethodConfig

BEAT = 30.0  # seconds between signs of life of who holds a lease
STALE_AFTER = 600.0  # seconds without one


@dataclass(frozen=True)
class Job:
    """One clip edited by one method with one seed. `method` has no `+composite`: both are scored of one edit.

    `inputs` tells everything else that the result depends on apart: the item itself, dtype, weights.
    """

    item: str
    model: str
    method: str
    seed: int
    config: MethodConfig | None
    inputs: str = ""

    @property
    def id(self) -> str:
        """Stable and readable: the same arguments give the same name, whatever options are added later."""
        settings = json.dumps(chosen_fields(self.config) if self.config else {}, sort_keys=True)
        digest = hashlib.sha256(f"{self.model}\n{self.inputs}\n{settings}".encode()).hexdigest()[:8]
        model = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in self.model)[-40:]
        return f"{self.item}.{model}.{self.method}.s{self.seed}.{digest}"


def chosen_fields(config: MethodConfig) -> dict[str, Any]:
    """What differs from the defaults, so that an option that is added later does not make it another config.

    1 and 1.0 differ: one counts steps, the other is a share of them.
    """
    usual = {f.name: repr(f.default) for f in fields(config)}
    return {name: value for name, value in asdict(config).items() if repr(value) != usual[name]}


class Workplace:
    """The folder that several processes, on one machine or on many, share."""

    def __init__(self, out: Path):
        self.results, self._leases = out / "results", out / "leases"
        self.results.mkdir(parents=True, exist_ok=True)
        self._leases.mkdir(exist_ok=True)
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"

    def is_done(self, job: Job) -> bool:
        """Whether its result is there."""
        return (self.results / job.id / "result.json").is_file()

    @contextmanager
    def claimed(self, batch: list[Job]) -> Iterator[bool]:
        """Take the batch and hold it, with signs of life, to the end of the block.

        Gives False where it is done already or somebody is at it: exactly one of several callers gets True.
        """
        if not self._claim(batch):
            yield False
            return
        done = threading.Event()
        lease = self._leases / batch[0].id
        beat = threading.Thread(target=self._beat, args=(lease, done), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            done.set()
            beat.join()
            with self.alone():
                if self._owner(lease) == self._me:
                    lease.unlink()

    @contextmanager
    def writing(self, job: Job) -> Iterator[Path]:
        """A folder to fill; it becomes the job's result when all went well, and is removed otherwise."""
        unfinished = self.results / f".{job.id}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            with self.alone():
                if not self.is_done(job):
                    shutil.rmtree(self.results / job.id, ignore_errors=True)  # what is left of a damaged one
                    os.replace(unfinished, self.results / job.id)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read(self) -> list[dict[str, Any]]:
        """Every result that is there, by name, with the scores that were added to it later."""
        return [_read_result(path) for path in sorted(self.results.glob("[!.]*/result.json"))]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process of the folder is in such a block at the same time."""
        with (self._leases / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _claim(self, batch: list[Job]) -> bool:
        if all(map(self.is_done, batch)):
            return False
        with self.alone():
            lease = self._leases / batch[0].id
            if all(map(self.is_done, batch)) or not self._is_free(lease):
                return False
            lease.write_text(self._me)
            return True

    def _is_free(self, lease: Path) -> bool:
        owner = self._owner(lease)
        if owner is None:
            return True
        host, pid, *_ = [*owner.split(":"), ""]
        dead = host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid))
        return dead or time.time() - lease.stat().st_mtime > STALE_AFTER

    def _owner(self, lease: Path) -> str | None:
        return lease.read_text() if lease.exists() else None

    def _beat(self, lease: Path, done: threading.Event) -> None:
        while not done.wait(BEAT):
            if self._owner(lease) == self._me:
                os.utime(lease)


def _read_result(path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text()) | {"folder": path.parent.name}
    added = path.with_name("networks.json")
    if added.exists():
        for suffix, scores in json.loads(added.read_text())["scores"].items():
            result["scores"][suffix] = result["scores"].get(suffix, {}) | scores
    return result


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
