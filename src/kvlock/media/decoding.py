"""A video file to a clip.

What PyAV leaves to its caller is done here: which stream is the video, rotation and mirrors, colour
tags, damaged files that decode without an exception, playlists dressed up as video, sizes that are
refused from the header.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition

from kvlock.media.clip import MAX_PIXELS, BadVideoError, Clip, check_count
from kvlock.media.colour import (
    display_matrix,
    is_transparent,
    is_transposed,
    is_upright,
    to_rgb,
    turned,
)
from kvlock.media.damage import check_complete, check_reports, reports

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,ogg,asf"
HDR_TRANSFERS = (16, 18)
NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails
USUAL_RATE = 16
ONE_TO_ONE = ("mpeg1video", "mpeg2video", "mjpeg", "png", "ffv1", "gif")  # a packet is a frame


@dataclass
class _Reading:
    """What has come of a file so far."""

    path: Path
    max_frames: int
    frames: list[np.ndarray] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    trimmed: int = 0  # frames that are in the file, but not in the clip
    expected: int = 0  # by an AVI's count, which goes on over the frames that it skips
    end: float = 0.0  # of any stream's packets: the one that ends last tells if the file is whole
    damaged: int = 0  # packets that the container knows to be, or that are not there
    pictures: int = 0  # packets that are to give a frame
    due: int | None = None  # when the next packet comes, in a stream without a count or an index
    transparent: bool = False
    matrix: np.ndarray | None = None

    def pass_packet(self, packet: av.Packet) -> None:
        """Of any stream."""
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.end = max(self.end, float(end))

    def count_packet(self, packet: av.Packet, form: str) -> None:
        """Of the video, in that container."""
        if form == "mpegts" and packet.dts is not None:
            is_late = self.due is not None and 2 * (packet.dts - self.due) > (packet.duration or 0)
            self.damaged += is_late
            self.due = packet.dts + packet.duration if packet.duration else None
        self.trimmed += packet.is_discard  # cut off by an edit list
        self.damaged += packet.is_corrupt
        self.pictures += bool(packet.size) and not packet.is_discard
        if form == "avi" and packet.dts is not None:
            self.trimmed += packet.dts - self.expected
            self.expected = packet.dts + 1

    def add(self, frame: av.VideoFrame) -> None:
        """The next frame, turned upright. Raises BadVideoError where it is unsuitable."""
        count = len(self.frames)
        check_count(self.path, count + 1, self.max_frames)
        if frame.color_trc in HDR_TRANSFERS:
            raise BadVideoError(
                f"{self.path}: HDR video is not supported; convert it to SDR (bt709) first"
            )
        if frame.is_corrupt:
            raise BadVideoError(
                f"{self.path}: frame {count} is damaged; re-encode or repair the file"
            )
        self.matrix = display_matrix(frame)
        picture = turned(to_rgb(frame), self.matrix)
        if self.frames and picture.shape != self.frames[0].shape:
            sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (self.frames[0], picture))
            raise BadVideoError(
                f"{self.path}: its frames have two sizes, {sizes}; scale them first"
            )
        self.frames.append(picture)
        self.times.append(frame.pts)
        self.transparent = self.transparent or is_transparent(frame)


def decode(path: Path, max_frames: int) -> Clip:
    """The video of a file, upright. Raises BadVideoError, and for damage almost anything else."""
    reading = _Reading(path, max_frames)
    with reports() as reported, _opened(path) as container:
        stream = _video_stream(path, container)
        _check_header(path, stream, max_frames)
        for frame in _frames(container, stream, reading):
            reading.add(frame)
        form, codec = container.format.name, stream.codec_context.name
        notes = _notes(path, container, stream, reading)
        notes += check_complete(
            path, container, stream, len(reading.frames), reading.trimmed, reading.end
        )
        notes += check_reports(path, reported, codec, form)
        rate = Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        times, time_base = _times(reading.times, rate, stream.time_base or 1 / rate)
        frames = torch.from_numpy(np.stack(reading.frames))
        aspect = _pixel_aspect(stream, reading.matrix)
        return Clip(frames, rate, times, time_base, path, aspect, tuple(notes))


def read_alpha(path: Path) -> list[np.ndarray] | None:
    """The opacity of a video that `decode` takes, uint8 [H, W] a frame; None where all is opaque."""
    with reports(), _opened(path) as container:
        stream = _video_stream(path, container)
        stream.codec_context.thread_count = 1  # see `reports`
        planes = []
        for frame in container.decode(stream):
            if not any(c.is_alpha for c in frame.format.components):
                return None
            rgba = frame.reformat(format="rgba").to_ndarray()
            planes.append(turned(rgba[..., 3:], display_matrix(frame))[..., 0])
    return planes if min(int(plane.min()) for plane in planes) < 255 else None


def _opened(path: Path) -> InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    return av.open(str(path.absolute()), options=options)  # "a:b.mp4" alone would name a protocol


def _video_stream(path: Path, container: InputContainer):
    """The film: neither cover art nor thumbnails."""
    films = [s for s in container.streams.video if not s.disposition & NO_FILM]
    if not films:
        only = ", only a cover picture" if container.streams.video else ""
        raise BadVideoError(f"{path}: the file has no video stream{only}")
    best = container.streams.best("video")
    return next((s for s in films if best and s.index == best.index), films[0])


def _check_header(path: Path, stream, max_frames: int) -> None:
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        size = f"{context.width}x{context.height}"
        raise BadVideoError(f"{path}: {size} is larger than {MAX_PIXELS} pixels")
    check_count(path, stream.frames, max_frames)


def _frames(container: InputContainer, stream, reading: _Reading) -> Iterator[av.VideoFrame]:
    stream.codec_context.thread_count = 1  # see `reports`
    for packet in container.demux():
        reading.pass_packet(packet)
        if packet.stream.index == stream.index:
            reading.count_packet(packet, container.format.name)
            if packet.size:
                yield from stream.decode(packet)
    yield from stream.decode(None)  # what the decoder still holds


def _notes(path: Path, container: InputContainer, stream, reading) -> list[str]:
    notes = []
    films = [s for s in container.streams.video if not s.disposition & NO_FILM]
    if len(films) > 1:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        notes.append(f"{path}: of its {len(films)} video streams the one of {size} is read")
    if stream.codec_context.name in ONE_TO_ONE:
        reading.damaged += max(0, reading.pictures - len(reading.frames))
    if reading.damaged:
        count = f"{reading.damaged} of its packets"
        notes.append(f"{path}: {count} are damaged or missing, and with them frames may be")
    if reading.transparent or stream.metadata.get("alpha_mode") == "1":
        notes.append(f"{path}: its transparency is dropped")
    if reading.matrix is not None and not is_upright(reading.matrix):
        notes.append(f"{path}: it is to be shown tilted, which is not followed")
    aspect = _pixel_aspect(stream, reading.matrix)
    if aspect != 1:
        shape = f"{aspect.numerator}:{aspect.denominator}"
        notes.append(
            f"{path}: its pixels are not square but {shape}; the edit keeps that, and the model "
            f"sees the picture as if they were square"
        )
    return notes


def _pixel_aspect(stream, matrix: np.ndarray | None) -> Fraction:
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return 1 / aspect if matrix is not None and is_transposed(matrix) else aspect


def _times(
    times: list[int | None], rate: Fraction, time_base: Fraction
) -> tuple[tuple[int, ...], Fraction]:
    """The frames' own times, or even ones where the file (an AVI) holds none that advance."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(later <= time for time, later in pairwise(known)):
        return tuple(range(len(times))), 1 / rate
    return tuple(known), time_base
