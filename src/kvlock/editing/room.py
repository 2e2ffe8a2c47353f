"""Whether there is room for an edit: on the disk for its files, in the host's memory for its frames."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kvlock.editing.destination import is_file
from kvlock.media.clip import BadVideoError
from kvlock.media.encoding import FORMS, rehearse
from kvlock.media.fit import Fit
from kvlock.media.pictures import comparison_size

if TYPE_CHECKING:
    from kvlock.editing.edit import EditPlan

# Bytes a pixel in a file, of the most detailed of the clips that were tried; noise takes more.
LOSSY, LOSSLESS = 0.1, 1.0
PICTURES = 3_000_000  # bytes of sheets, plots and JSON, at the most
DECODED = 36  # bytes a pixel while latents become frames: float32 RGB, three at once
RGB = 3


def check_writing(planned: "EditPlan", out: Path) -> list[str]:
    """Notes on what will be written another way than it was read.

    Raises ValueError where the clip's sound or size cannot be written, or the disk has no room.
    """
    form = FORMS[out.suffix.lower()] if is_file(out) else "mp4"
    notes = rehearse(planned.clip, planned.job.lossless, form)
    if _bytes_to_write(planned, out) > _free(out):
        raise ValueError(f"--out {out}: {_room(planned, out)}; make room, or give another disk")
    return notes


@contextmanager
def explained_by_room(planned: "EditPlan", out: Path) -> Iterator[None]:
    """An error in the block says how much room is needed and how much there is."""
    try:
        yield
    except (OSError, BadVideoError) as error:
        error.add_note(_room(planned, out))
        raise


def frame_bytes(fit: Fit, variants: int) -> int:
    """Bytes of the host's memory for all frames that are still to come, at their most.

    The fitted clip, the decoder's pictures, the edits with and without the composite, what the
    comparison and the sheet are made of, and the source through the VAE.
    """
    (frames, height, width), model = fit.source, math.prod(fit.model)
    clip, shown = frames * height * width, frames * math.prod(comparison_size(height, width))
    fitted = (RGB + 1) * model
    decoding = variants * (DECODED * model + RGB * clip)
    writing = variants * 2 * RGB * clip + 3 * RGB * clip + RGB * shown
    measuring = variants * RGB * clip + DECODED * model + RGB * clip
    return fitted + max(decoding, writing, measuring)


def _bytes_to_write(planned: "EditPlan", out: Path) -> int:
    """Estimated, with the latents that are kept until then."""
    frames, height, width = planned.fit.source
    a_pixel = LOSSLESS if planned.job.lossless else LOSSY
    each = a_pixel * frames * height * width
    if not is_file(out):
        each += LOSSY * frames * math.prod(comparison_size(height, width)) + PICTURES
    return round(len(planned.requests) * each)


def _room(planned: "EditPlan", out: Path) -> str:
    need, free = _bytes_to_write(planned, out), _free(out)
    return f"about {need / 1e6:.1f} MB are needed there, and {free / 1e6:.1f} MB are free"


def _free(out: Path) -> int:
    return shutil.disk_usage(out if out.is_dir() else out.absolute().parent).free
