"""Which of a file's streams is the video."""

import io
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from kvlock.media.video import read_video, write_video
from support.clips import (
    add_tone,
    add_video,
    noisy,
    refused,
    smooth,
)

FRAMES = noisy(25, 48, 64)
TEXT_FONT = ("a.ttf", "application/x-truetype-font", b"\0\1\0\0not a font")


def picture_bytes(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, form)
    return file.getvalue()


def packet(stream, content: bytes, second: float, duration: float = 0.5) -> av.Packet:
    made = av.Packet(content)
    made.stream, made.time_base = stream, Fraction(1, 1000)
    made.pts = made.dts = round(second * 1000)
    made.duration = round(duration * 1000)
    return made


# Each adds its stream to the container and returns what fills it.


def film(container, codec="libx264"):
    return add_video(container, FRAMES, codec)[1]


def sound(container):
    return add_tone(container, "libmp3lame", 25 / 16)


def data(container):
    stream = container.add_data_stream("bin_data")
    return lambda: [container.mux(packet(stream, b"data", s / 4)) for s in range(6)]


def subtitles(container):
    stream = container.add_mux_stream("subrip")
    return lambda: [container.mux(packet(stream, b"words", s / 2)) for s in range(3)]


def font(container):
    container.add_attachment(*TEXT_FONT)
    return lambda: None


def cover(container):
    if container.format.name == "matroska":
        container.add_attachment("cover.jpg", "image/jpeg", picture_bytes("JPEG"))
        return lambda: None
    stream = container.add_stream("png", rate=16)
    stream.width = stream.height = 32
    stream.pix_fmt, stream.disposition = "rgb24", av.stream.Disposition.attached_pic
    return lambda: container.mux(packet(stream, picture_bytes("PNG"), 0))


def timecode(container):
    """Of the film that comes after it."""
    container.metadata["timecode"] = "01:00:00:00"
    return lambda: None


ORDERS = [
    ("mp4", [film]),
    ("mp4", [sound, film]),
    ("mp4", [sound, sound, film]),
    ("mp4", [film, sound]),
    ("mp4", [cover, film]),
    ("mp4", [sound, cover, film]),
    ("mov", [timecode, film]),
    ("mov", [timecode, sound, film]),
    ("matroska", [sound, film]),
    ("matroska", [subtitles, film]),
    ("matroska", [subtitles, sound, film]),
    ("matroska", [film, font]),
    ("matroska", [font, sound, film]),
    ("matroska", [cover, film]),
    ("matroska", [cover, font, subtitles, sound, film]),
    ("avi", [sound, film]),
    ("mpegts", [data, film]),
    ("mpegts", [sound, data, film]),
    ("mpegts", [data, sound, film]),
]


def mixed(path: Path, form: str, order) -> Path:
    with av.open(str(path), "w", format=form) as container:
        for fill in [add(container) for add in order]:
            fill()
    return path


@pytest.mark.parametrize(
    "form, order", ORDERS, ids=[f"{f}-{'-'.join(a.__name__ for a in o)}" for f, o in ORDERS]
)
def test_every_frame_is_read_whatever_else_the_file_holds(tmp_path, form, order):
    path = mixed(tmp_path / "a.video", form, order)
    alone = mixed(tmp_path / "b.video", form, [film])
    clip = read_video(path, 25)
    assert torch.equal(clip.frames, read_video(alone, 25).frames) and len(clip.frames) == 25
    assert clip.notes == ()
    write_video(tmp_path / "c.mp4", clip.frames, clip)
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert len(container.streams.audio) == order.count(sound)


def test_the_orders_hold_what_they_say(tmp_path):
    """The muxers may sort streams, but most of these files begin with something else."""
    first, kinds = [], set()
    for number, (form, order) in enumerate(ORDERS):
        with av.open(str(mixed(tmp_path / f"{number}", form, order))) as container:
            first.append(container.streams[0].type)
            kinds |= {s.type for s in container.streams}
            assert len(container.streams) >= len(order)
    assert kinds == {"video", "audio", "data", "subtitle", "attachment"}
    assert first.count("video") < len(first) / 2


def test_a_cover_alone_is_no_video(tmp_path):
    refused(mixed(tmp_path / "a.mp4", "mp4", [sound, cover]), "no video stream, only a cover")
    refused(mixed(tmp_path / "b.mp4", "mp4", [sound]), "no video stream$")


def test_of_two_films_one_is_read_and_said(tmp_path):
    small, large = smooth(5, 48, 64), smooth(5, 96, 128)
    with av.open(str(tmp_path / "a.mkv"), "w", format="matroska") as container:
        for fill in [add_video(container, frames)[1] for frames in (small, large)]:
            fill()
    clip = read_video(tmp_path / "a.mkv", 5)
    height, width = clip.frames.shape[1:3]
    (note,) = clip.notes
    assert note == f"{clip.path}: of its 2 video streams the one of {width}x{height} is read"
