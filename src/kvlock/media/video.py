"""Video files and folders of frames, through PyAV.

What PyAV leaves to its caller is done here: rotation, colour tags, damaged files that decode without an exception,
playlists dressed up as video, sizes that are refused from the header, whole files or none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,ogg,asf"
MAX_PIXELS = 4096 * 4096
IMAGES = (".png", ".jpg", ".jpeg")
HDR_TRANSFERS = (16, 18)
BT709 = 1


class BadVideoError(ValueError):
    """A file that cannot be read or written as a video; the message says which and why."""


@dataclass(frozen=True)
class Clip:
    """frames: uint8 [F, H, W, 3]. `times` are presentation times in units of `time_base`, one a frame."""

    frames: np.ndarray
    rate: Fraction
    times: tuple[int, ...]
    time_base: Fraction
    path: Path

    @property
    def is_file(self) -> bool:
        """False for a folder of frames."""
        return self.path.is_file()


def read_video(path: str | Path, max_frames: int, folder_rate: Fraction = Fraction(16)) -> Clip:
    """A video file, or a folder of PNG/JPEG frames in numerical order at `folder_rate`.

    Raises BadVideoError for anything that is not a whole, safe SDR video of at most `max_frames` frames.
    """
    path = Path(path)
    if not path.exists():
        raise BadVideoError(f"{path}: no such file or folder")
    if path.is_dir():
        frames = _read_folder(path, max_frames)
        return Clip(frames, folder_rate, tuple(range(len(frames))), 1 / folder_rate, path)
    if path.stat().st_size == 0:
        raise BadVideoError(f"{path}: the file is empty")
    try:
        return _decode(path, max_frames)
    except BadVideoError:
        raise
    except Exception as error:  # a damaged file can make PyAV raise almost anything
        raise BadVideoError(f"{path}: cannot be decoded as a video ({type(error).__name__}: {error})") from error


def write_video(path: str | Path, frames: np.ndarray, like: Clip, lossless: bool = False) -> None:
    """Write uint8 [F, H, W, 3] with the times and the audio of `like`, whole or not at all.

    High-quality H.264 (4:2:0, bt709; 4:4:4 where a side is odd); `lossless` writes RGB H.264 that decodes to the same
    bytes. Raises BadVideoError where it cannot be written.
    """
    path = Path(path)
    try:
        with whole_file(path) as unfinished:
            _encode(unfinished, frames, like, lossless)
    except BadVideoError:
        raise
    except Exception as error:
        raise BadVideoError(f"{path}: cannot be written ({type(error).__name__}: {error})") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when all went well and removed otherwise."""
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def frame_files(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder in numerical order."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGES]
    if not files:
        raise BadVideoError(f"{folder}: the folder holds no PNG or JPEG frames")
    return sorted(files, key=lambda f: (int("".join(filter(str.isdecimal, f.stem)) or 0), f.name))


def open_image(path: Path) -> Image.Image:
    """An image, decoded; raises BadVideoError where it is none or too large."""
    try:
        image = Image.open(path)
        if image.width * image.height > MAX_PIXELS:
            raise BadVideoError(f"{path}: {image.width}x{image.height} is larger than {MAX_PIXELS} pixels")
        image.load()
        return image
    except BadVideoError:
        raise
    except Exception as error:  # Pillow, too: OSError, SyntaxError, ValueError, DecompressionBombError
        raise BadVideoError(f"{path}: cannot be read as an image ({error})") from error


def _read_folder(folder: Path, max_frames: int) -> np.ndarray:
    files = frame_files(folder)
    _check_count(folder, len(files), max_frames)
    frames = [np.asarray(open_image(f).convert("RGB")) for f in files]
    odd = next((f for f, x in zip(files, frames) if x.shape != frames[0].shape), None)
    if odd:
        raise BadVideoError(f"{odd}: its size differs from that of {files[0].name}; all frames must have one size")
    return np.stack(frames)


def _decode(path: Path, max_frames: int) -> Clip:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    with av.open(str(path.absolute()), options=options) as container:  # "a:b.mp4" alone would name a protocol
        if not container.streams.video:
            raise BadVideoError(f"{path}: the file has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise BadVideoError(f"{path}: {stream.width}x{stream.height} is larger than {MAX_PIXELS} pixels")
        _check_count(path, stream.frames, max_frames)
        stream.thread_type = "AUTO"
        frames, times, trimmed, end, expected = [], [], 0, 0.0, 0
        for packet in container.demux():  # every stream's, as the one that ends last tells whether the file is whole
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            trimmed += packet.is_discard  # cut off by an edit list: in the file, but not in the clip
            if container.format.name == "avi" and packet.dts is not None:  # AVI counts the frames it skips, too
                trimmed, expected = trimmed + packet.dts - expected, packet.dts + 1
            for frame in packet.decode():
                _check_count(path, len(frames) + 1, max_frames)
                if frame.color_trc in HDR_TRANSFERS:
                    raise BadVideoError(f"{path}: HDR video is not supported; convert it to SDR (bt709) first")
                if frame.is_corrupt:
                    raise BadVideoError(f"{path}: frame {len(frames)} is damaged; re-encode or repair the file")
                frames.append(_to_rgb(frame))
                times.append(frame.pts)
        _check_complete(path, container, stream, len(frames), trimmed, end)
        rate, time_base = Fraction(stream.average_rate or stream.guessed_rate or 16), Fraction(stream.time_base)
        if None in times or any(later <= time for time, later in pairwise(times)):  # AVI holds no such times
            times, time_base = range(len(frames)), 1 / rate
        return Clip(np.stack(frames), rate, tuple(times), time_base, path)


def _check_count(path: Path, count: int, max_frames: int) -> None:
    if count > max_frames:
        raise BadVideoError(
            f"{path}: more than {max_frames} frames, the most that can be taken at once; cut it to {max_frames} frames"
        )


def _check_complete(
    path: Path, container: av.container.InputContainer, stream, count: int, trimmed: int, end: float
) -> None:
    """A file cut short may decode without an exception; `end` is where its last packet ends, in seconds."""
    if count == 0:
        raise BadVideoError(f"{path}: the file holds no video frames")
    if count + trimmed < stream.frames:
        raise BadVideoError(f"{path}: damaged or truncated, {count} of {stream.frames - trimmed} frames decode")
    promised = (container.duration or 0) / av.time_base
    if end + 2 / float(stream.average_rate or 16) + 0.05 < promised:  # the last packet may come without a duration
        raise BadVideoError(f"{path}: truncated, its header promises {promised:.2f} s and it holds {end:.2f} s")


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Through the stream's own colour tags; untagged video is bt709 from 720 lines on, bt601 below."""
    matrix = frame.colorspace
    if matrix in (2, None):
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    elif matrix == 0:  # RGB itself
        matrix = Colorspace.ITU709
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=Colorspace.ITU709).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90))


def _encode(path: Path, frames: np.ndarray, like: Clip, lossless: bool) -> None:
    height, width = frames.shape[1:3]
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=like.rate)
        stream.width, stream.height = width, height
        stream.codec_context.time_base = like.time_base
        stream.codec_context.thread_count = 1  # the encoded bytes depend on the number of threads
        if lossless:
            stream.pix_fmt, stream.options = "rgb24", {"crf": "0", "preset": "fast"}
        else:
            stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            # x264's macroblock tree reads memory that it never wrote, so that equal frames give unequal bytes.
            stream.options = {"crf": "14", "preset": "medium", "mbtree": "0"}
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = BT709
            context.color_range = 1
        source = av.open(str(like.path.absolute()), options={"protocol_whitelist": "file"}) if like.is_file else None
        try:
            audio = {s.index: container.add_stream_from_template(s) for s in source.streams.audio} if source else {}
            for array, time in zip(frames, like.times):
                container.mux(stream.encode(_from_rgb(array, stream.pix_fmt, time, like.time_base)))
            container.mux(stream.encode())
            for packet in source.demux(source.streams.audio) if audio else ():
                if packet.dts is not None:
                    packet.stream = audio[packet.stream_index]
                    container.mux(packet)
        finally:
            if source:
                source.close()


def _from_rgb(array: np.ndarray, pix_fmt: str, time: int, time_base: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
    if pix_fmt != "rgb24":
        frame = frame.reformat(format=pix_fmt, src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU709)
    frame.pts, frame.time_base = time, time_base
    return frame
