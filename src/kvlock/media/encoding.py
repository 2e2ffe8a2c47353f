"""A clip to an mp4, with another's times and sound."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from torch import Tensor

from kvlock.media.clip import Clip
from kvlock.media.colour import from_rgb

BT709 = 1
LIMITED_RANGE = 1


def encode(path: Path, frames: Tensor, like: Clip, lossless: bool) -> None:
    """uint8 [F, H, W, 3] as mp4, with the times, the pixel aspect and the audio of `like`."""
    with av.open(str(path.absolute()), "w", format="mp4") as container, _source(like) as source:
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=like.rate)
        stream.height, stream.width = frames.shape[1:3]
        pix_fmt = _set_up(stream, like, lossless)
        tracks = source.streams.audio if source else ()
        sound = {s.index: container.add_stream_from_template(s) for s in tracks}
        for frame, time in zip(frames, like.times):
            container.mux(stream.encode(from_rgb(frame.numpy(), pix_fmt, time, like.time_base)))
        container.mux(stream.encode())
        for packet in source.demux(source.streams.audio) if source and sound else ():
            if packet.dts is not None:
                packet.stream = sound[packet.stream_index]
                container.mux(packet)


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
