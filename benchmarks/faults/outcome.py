"""What a command did, and the judgement that knows nothing of kvlock but its promises."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

RIGHT = ""
OUT = "out"  # what a case writes, in its folder: a file or a folder of any ending
HIDDEN = ".kvlock-"  # what is not whole yet, and an edit's latents until it is written
BAR = re.compile(r"variance .* omega|^\s*$|━")
LONGEST = 1500  # letters of a sentence


@dataclass(frozen=True)
class Outcome:
    """A command that ended. code: negative is a signal's number, None a hang. before: of `digest`."""

    folder: Path
    code: int | None
    said: str
    complained: str
    before: dict[str, str]

    @property
    def out(self) -> Path:
        """What was written; a name that nothing has where that is nothing."""
        return next(iter(sorted(self.folder.glob(f"{OUT}*"))), self.folder / OUT)


def digest(folder: Path) -> dict[str, str]:
    """Every file under a folder but for what a command writes, whole or hidden."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.is_symlink()]
    inputs = [f for f in files if not f.relative_to(folder).parts[0].startswith((OUT, HIDDEN))]
    return {str(f.relative_to(folder)): hashlib.md5(f.read_bytes()).hexdigest() for f in inputs}


def refused(outcome: Outcome, name: str, leaves: bool = False) -> str:
    """Exit 2, one sentence that holds `name`, no traceback, nothing written; or what is wrong.

    leaves: what is written was there before, or is kept to be finished.
    """
    lines = [line for line in outcome.complained.splitlines() if not BAR.search(line)]
    lines = [line for line in lines if not line.startswith("warning: ")]
    if (flaw := ended(outcome, leaves)) != RIGHT:
        return flaw
    if outcome.code != 2:
        return f"exit {outcome.code}, expected 2"
    if len(lines) != 1 or not lines[0].startswith("kvlock: ") or len(lines[0]) > LONGEST:
        return f"not one sentence: {lines}"
    if name not in lines[0]:
        return f"{name} is not named: {lines[0]}"
    if re.search(r"\[Errno|\b\w+Error:|object at 0x", lines[0]):
        return f"a library's raw words: {lines[0]}"
    return (
        RIGHT
        if leaves or not outcome.out.exists()
        else f"something was written: {outcome.out.name}"
    )


def ended(outcome: Outcome, leaves: bool = False) -> str:
    """No hang, no traceback, inputs as they were, no hidden rests; or what is wrong."""
    if outcome.code is None:
        return "a hang"
    if "Traceback" in outcome.complained:
        return f"a traceback: {outcome.complained.strip().splitlines()[-1]}"
    if digest(outcome.folder) != outcome.before:
        now = digest(outcome.folder)
        changed = [n for n in {*now, *outcome.before} if now.get(n) != outcome.before.get(n)]
        return f"files changed, appeared or went: {sorted(changed)[:3]}"
    rests = [f.name for f in outcome.folder.rglob(f"{HIDDEN}*")]
    return f"left behind: {rests}" if rests and not leaves else RIGHT


def frames_of(path: Path) -> np.ndarray:
    """uint8 [F, H, W, 3] by FFmpeg alone."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def passed(outcome: Outcome) -> str:
    """Exit 0 and something written; or what is wrong."""
    if (flaw := ended(outcome)) != RIGHT:
        return flaw
    if outcome.code != 0:
        return f"exit {outcome.code}: {outcome.complained.strip()[-300:]}"
    return RIGHT if outcome.out.exists() else "exit 0, and nothing was written"
