"""One case: a command, under which conditions it runs, and who says whether it ended right."""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.outcome import Outcome, digest

SECONDS = 60.0  # after which a command hangs


@dataclass(frozen=True)
class Case:
    """`judge` gives "" where the outcome is right, and otherwise what is wrong.

    file_size: most bytes of a file that the command may write. stop: a signal and the seconds after
    which it comes. prepare: done in the command's own process before it begins.
    """

    words: list[str]
    judge: Callable[[Outcome], str]
    what: str
    file_size: int | None = None
    stop: tuple[signal.Signals, float] | None = None
    prepare: Callable[[], None] | None = None
    seconds: float = SECONDS


def perform(case: Case, folder: Path) -> Outcome:
    """Run the command in a fork of this process, which has everything imported already."""
    before = digest(folder)
    logs = [folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr")]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # a fork has its own copy of what waits
    child = os.fork()
    if not child:
        _become(case, logs)
    code = _waited(child, case)
    said, complained = (log.read_text(errors="replace") for log in logs)
    for log in logs:
        log.unlink()
    return Outcome(folder, code, said, complained, before)


def _become(case: Case, logs: list[Path]) -> None:
    """The command in this process, which ends here."""
    code = 1
    try:
        for number, log in enumerate(logs, start=1):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        if case.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_size, case.file_size))
        if case.prepare:
            case.prepare()
        code = _exit_code(case.words)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(words: list[str]) -> int:
    import traceback

    from kvlock.cli import run_and_exit

    sys.argv = ["kvlock", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_and_exit()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    return 1


def _waited(child: int, case: Case) -> int | None:
    began, stop = time.monotonic(), case.stop
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if stop and passed >= stop[1]:
            os.kill(child, stop[0])
            stop = None
        if passed > case.seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)
