"""What tells that a video file is damaged though it decodes without an exception."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.logging
from av.container import InputContainer

from kvlock.media.clip import BadVideoError

# These decoders mark the frames that they had to make up, and such frames are refused one by one;
# what else they report is often only the joint of a healthy file that was cut without re-encoding.
MARKING = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")
HARMLESS = ("APP fields",)  # a camera's own notes in an MJPEG
CUT_SHORT = "ended prematurely"  # Matroska's and WebM's
GIF_END = b";"
TS_PACKETS = (188, 192, 204)  # bytes, of which a transport stream has whole ones

_capturing = threading.Lock()

Report = tuple[int, str, str]


@contextmanager
def reports() -> Iterator[list[Report]]:
    """What FFmpeg reports in this block and thread: (level, who, message).

    Decode on one thread in it: a decoder's own threads would wait for Python's lock to report, and
    Python for them to end.
    """
    with _capturing:
        before = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # what the last file's reader said counts again
        try:
            with av.logging.Capture(local=True) as found:
                yield found
        finally:
            av.logging.set_level(before[0])
            av.logging.set_skip_repeated(before[1])


def check_reports(path: Path, found: list[Report], codec: str, form: str) -> list[str]:
    """Notes on what FFmpeg reported of the video `codec` and the container `form`.

    Raises BadVideoError where the report means that pictures are lost.
    """
    errors = [
        (who, message.strip())
        for level, who, message in found
        if level <= av.logging.ERROR and who in (codec, form) and message.strip()
    ]
    errors = [e for e in errors if not any(words in e[1] for words in HARMLESS)]
    for who, message in errors:
        if CUT_SHORT in message:
            raise BadVideoError(f"{path}: truncated, the file ends before its last frame does")
        if who == codec and codec not in MARKING:
            raise BadVideoError(
                f"{path}: damaged, the {codec} decoder says {message!r}; re-encode or repair it"
            )
    if not errors:
        return []
    who, message = errors[0]
    return [f"{path}: FFmpeg reports {message!r} ({who}); look at the frames before you use them"]


def check_complete(
    path: Path, container: InputContainer, stream, count: int, trimmed: int, end: float
) -> list[str]:
    """Notes on whether all `count` frames are there; raises BadVideoError where some are not.

    `trimmed` frames are in the file and not in the clip; `end` is where the file's last packet
    ends, in seconds.
    """
    if count == 0:
        raise BadVideoError(f"{path}: the file holds no video frames")
    if count + trimmed < stream.frames:
        promised = stream.frames - trimmed
        raise BadVideoError(f"{path}: damaged or truncated, {count} of {promised} frames decode")
    promised = (container.duration or 0) / av.time_base
    slack = 2 / float(stream.average_rate or 16) + 0.05  # a last packet may have no duration
    if end + slack < promised:
        raise BadVideoError(
            f"{path}: truncated, its header promises {promised:.2f} s and it holds {end:.2f} s"
        )
    if container.format.name == "gif" and not _has_gif_end(path):
        return [f"{path}: the gif has no end mark; its last frames may be missing"]
    if container.format.name == "mpegts" and all(path.stat().st_size % n for n in TS_PACKETS):
        return [f"{path}: it ends within a packet; its last frames may be missing"]
    return []


def _has_gif_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        return file.read().rstrip(b"\0\r\n").endswith(GIF_END)
