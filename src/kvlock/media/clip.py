"""A clip in memory, and the error for files that are none."""

import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor

MAX_PIXELS = 4096 * 4096  # of one frame


class BadVideoError(ValueError):
    """A file that cannot be read or written as a video; the message says which and why."""


@dataclass(frozen=True)
class Clip:
    """A video in memory, with what its file says beside the pixels.

    frames: uint8 [F, H, W, 3]. `times` are presentation times in units of `time_base`, one a frame.
    `pixel_aspect` is a stored pixel's width over its height when shown. `notes` are sentences for
    the user: what was dropped or cannot be vouched for.
    """

    frames: Tensor
    rate: Fraction
    times: tuple[int, ...]
    time_base: Fraction
    path: Path
    pixel_aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """False for a folder of frames."""
        return self.path.is_file()


def check_is_data(path: Path) -> None:
    """Raise BadVideoError for a pipe, a socket or a device, which could be read for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}.get(stat.S_IFMT(mode), "device")
        raise BadVideoError(f"{path}: it is a {kind}; expected a file or a folder")


def check_count(path: Path, count: int, max_frames: int) -> None:
    """Raise BadVideoError where there are more than `max_frames` frames."""
    if count > max_frames:
        raise BadVideoError(
            f"{path}: more than {max_frames} frames, the most that can be taken at once; "
            f"cut it to {max_frames} frames"
        )
