"""Jobs over one folder: each done once, by whichever process comes first, and written whole or not at all.

OUT/results/JOB/    result.json and what else the job left; it is there only when it is complete
OUT/leases/JOB      who is at the batch that begins with JOB; its age tells whether they still are

A batch is what runs in one forward. It is taken, and run again where a result of it was lost, as a whole: what stands
beside a clip in a batch moves its last bits.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvlock.methods.table import MethodConfig

STALE_AFTER = 600.0  # seconds without a sign of life; every step gives one


@dataclass(frozen=True)
class Job:
    """One clip edited by one method with one seed. `method` has no `+composite`: both are scored of one edit."""

    item: str
    model: str
    method: str
    seed: int
    config: MethodConfig | None

    @property
    def id(self) -> str:
        """Stable and readable: the same arguments give the same name."""
        settings = json.dumps(asdict(self.config) if self.config else {}, sort_keys=True)
        digest = hashlib.sha256(f"{self.model}\n{settings}".encode()).hexdigest()[:8]
        model = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.model)[-40:]
        return f"{self.item}.{model}.{self.method}.s{self.seed}.{digest}"


class Workplace:
    """The folder that several processes, on one machine or on many, share."""

    def __init__(self, out: Path):
        self.results, self._leases = out / "results", out / "leases"
        self.results.mkdir(parents=True, exist_ok=True)
        self._leases.mkdir(exist_ok=True)
        self._me = f"{socket.gethostname()}:{os.getpid()}"

    def is_done(self, job: Job) -> bool:
        """Whether its result is there."""
        return (self.results / job.id / "result.json").is_file()

    def claim(self, batch: list[Job]) -> bool:
        """Take the batch, unless it is done or somebody is at it. Exactly one of several callers gets True."""
        if all(map(self.is_done, batch)):
            return False
        lease = self._leases / batch[0].id
        if not self._created(lease) and not self._taken_over(lease):
            return False
        if all(map(self.is_done, batch)):  # it was finished, and its lease given back, between the two looks
            self.give_back(batch)
            return False
        return True

    def sign_of_life(self, batch: list[Job]) -> None:
        """Say that the batch is still being worked on."""
        os.utime(self._leases / batch[0].id)

    def give_back(self, batch: list[Job]) -> None:
        """Let go of a batch, done or not."""
        (self._leases / batch[0].id).unlink(missing_ok=True)

    @contextmanager
    def writing(self, job: Job) -> Iterator[Path]:
        """A folder to fill; it becomes the job's result when all went well, and is removed otherwise."""
        unfinished = self.results / f".{job.id}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            os.replace(unfinished, self.results / job.id)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read(self) -> list[dict[str, Any]]:
        """Every result that is there, by name."""
        paths = sorted(self.results.glob("[!.]*/result.json"))
        return [json.loads(path.read_text()) | {"folder": path.parent.name} for path in paths]

    def _created(self, lease: Path) -> bool:
        try:
            with lease.open("x") as file:
                file.write(self._me)
            return True
        except FileExistsError:
            return False

    def _stale_owner(self, lease: Path) -> str | None:
        """Whose lease it is, if they are gone."""
        try:
            owner, age = lease.read_text(), time.time() - lease.stat().st_mtime
        except FileNotFoundError:
            return None
        host, _, pid = owner.partition(":")
        gone = not _is_alive(int(pid)) if host == socket.gethostname() and pid.isdecimal() else age > STALE_AFTER
        return owner if gone else None

    def _taken_over(self, lease: Path) -> bool:
        """Move a lease whose owner is gone away, which only one process can, then take it as anybody would."""
        owner = self._stale_owner(lease)
        moved = lease.with_name(f".{lease.name}.{os.getpid()}")
        if owner is None:
            return False
        try:
            lease.rename(moved)
        except FileNotFoundError:
            return False
        fresh = moved.read_text() != owner  # somebody else was faster, and this is theirs
        if fresh:
            os.link(moved, lease)
        moved.unlink()
        return not fresh and self._created(lease)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
