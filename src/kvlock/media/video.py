"""Videos in and out: files and folders of frames."""

from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from kvlock.media.clip import BadVideoError, Clip, check_is_data
from kvlock.media.decoding import decode
from kvlock.media.encoding import FORMS, encode
from kvlock.media.files import whole_file
from kvlock.media.images import read_frames

TAKEN = "mp4, mov, mkv, webm, avi, gif, ts, mpg, flv, ogv or wmv, or a folder of PNG or JPEG frames"

__all__ = ["BadVideoError", "Clip", "read_video", "write_video"]


def read_video(path: str | Path, max_frames: int, folder_rate: Fraction = Fraction(16)) -> Clip:
    """A video file, or a folder of PNG/JPEG frames in numerical order at `folder_rate`.

    Raises BadVideoError for anything that is not a whole, safe SDR video of at most `max_frames`
    frames. What is right but not all that the file holds stands in the clip's `notes`.
    """
    path = Path(path)
    if not path.exists():
        raise BadVideoError(f"{path}: no such file or folder")
    check_is_data(path)
    if path.is_dir():
        frames, notes = read_frames(path, max_frames)
        times = tuple(range(len(frames)))
        video = torch.from_numpy(frames)
        return Clip(video, folder_rate, times, 1 / folder_rate, path, notes=tuple(notes))
    if path.stat().st_size == 0:
        raise BadVideoError(f"{path}: the file is empty")
    try:
        return decode(path, max_frames)
    except BadVideoError:
        raise
    except PermissionError as error:
        raise BadVideoError(f"{path}: that file may not be read; change its permissions") from error
    except MemoryError as error:
        raise BadVideoError(f"{path}: there is no memory for its frames; cut it shorter") from error
    except Exception as error:  # a damaged file can make PyAV raise almost anything
        raise BadVideoError(
            f"{path}: cannot be decoded as a video, so it is damaged or of another kind; "
            f"expected {TAKEN}"
        ) from error


def write_video(path: str | Path, frames: Tensor, like: Clip, lossless: bool = False) -> None:
    """Write uint8 [F, H, W, 3] with the times and the audio of `like`, whole or not at all.

    As mkv where the path ends so, whose times are whole milliseconds, else as mp4. High-quality
    H.264 (4:2:0, bt709; 4:4:4 where a side is odd); `lossless` writes RGB H.264 that decodes to the
    same bytes. Raises BadVideoError where it cannot be written.
    """
    path = Path(path)
    try:
        with whole_file(path) as unfinished:
            encode(unfinished, frames, like, lossless, FORMS.get(path.suffix.lower(), "mp4"))
    except BadVideoError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise BadVideoError(f"{path}: cannot be written ({why})") from error
