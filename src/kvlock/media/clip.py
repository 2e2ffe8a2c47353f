"""A clip in memory, and the error for files that are none."""

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


def check_count(path: Path, count: int, max_frames: int) -> None:
    """Raise BadVideoError where there are more than `max_frames` frames."""
    if count > max_frames:
        raise BadVideoError(
            f"{path}: more than {max_frames} frames, the most that can be taken at once; "
            f"cut it to {max_frames} frames"
        )
