"""A clip to an mp4 or mkv, with another's times and sound."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from torch import Tensor

from kvlock.media.clip import BadVideoError, Clip
from kvlock.media.colour import from_rgb
from kvlock.media.sound import add_sound, takes

BT709 = 1
LIMITED_RANGE = 1
MOST_SIDE = 16384  # x264's
FORMS = {".mp4": "mp4", ".mkv": "matroska"}  # by the file's ending


def encode(
    target: Path | io.BytesIO, frames: Tensor, like: Clip, lossless: bool, form: str
) -> None:
    """uint8 [F, H, W, 3] with the times, the pixel aspect and the audio of `like`.

    Sound that a container of the format cannot hold is encoded again as AAC.
    """
    file = str(target.absolute()) if isinstance(target, Path) else target
    exact = {"fflags": "+bitexact"} if form == "matroska" else {}  # else it numbers files at random
    with av.open(file, "w", format=form, options=exact) as container, _source(like) as source:
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=like.rate)
        stream.height, stream.width = frames.shape[1:3]
        pix_fmt = _set_up(stream, like, lossless)
        mux_sound = add_sound(container, source, form) if source else None
        for frame, time in zip(frames, like.times):
            container.mux(stream.encode(from_rgb(frame.numpy(), pix_fmt, time, like.time_base)))
        container.mux(stream.encode())
        if mux_sound:
            mux_sound()


def rehearse(like: Clip, lossless: bool, form: str) -> list[str]:
    """Write the first picture and all sound to memory; notes on what is written another way.

    Raises BadVideoError for a clip whose edit could not be written.
    """
    height, width = like.frames.shape[1:3]
    if max(height, width) > MOST_SIDE:
        raise BadVideoError(
            f"the clip is {width}x{height}, and H.264 ends at {MOST_SIDE} a side; scale it first"
        )
    with _source(like) as source:
        tracks = source.streams.audio if source else ()
        codecs = sorted({t.codec_context.name for t in tracks if not takes(form, t)})
    try:
        encode(io.BytesIO(), like.frames[:1], like, lossless, form)
    except Exception as error:  # whatever a codec may raise
        what = f"its sound ({', '.join(codecs)})" if codecs else "its sound or its times"
        raise BadVideoError(
            f"{like.path}: {what} cannot be written as {form} ({type(error).__name__}); convert the "
            "clip, or leave its sound out"
        ) from error
    return [f"{like.path}: its sound ({c}) is encoded again, as AAC" for c in codecs]


def _set_up(stream, like: Clip, lossless: bool) -> str:
    """Set the encoder's options; gives the pixel format that it takes."""
    context = stream.codec_context
    context.time_base = like.time_base
    context.thread_count = 1  # the encoded bytes depend on the number of threads
    if like.pixel_aspect != 1:
        context.sample_aspect_ratio = like.pixel_aspect
    if lossless:
        stream.pix_fmt, stream.options = "rgb24", {"crf": "0", "preset": "fast"}
        return stream.pix_fmt
    stream.pix_fmt = "yuv444p" if stream.width % 2 or stream.height % 2 else "yuv420p"
    # x264's macroblock tree reads memory that it never wrote: equal frames give unequal bytes.
    stream.options = {"crf": "14", "preset": "medium", "mbtree": "0"}
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED_RANGE
    return stream.pix_fmt


@contextmanager
def _source(like: Clip) -> Iterator[InputContainer | None]:
    """The file that a clip came from, open, for its sound."""
    if not like.is_file:
        yield None
        return
    options = {"protocol_whitelist": "file"}
    with av.open(str(like.path.absolute()), options=options) as container:
        yield container
