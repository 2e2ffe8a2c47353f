"""Which stream is the video, and what a file says beside its pixels."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.video import Clip, read_video, write_video
from support.clips import (
    REAL_CLIPS,
    add_tone,
    add_video,
    encode,
    noisy,
    refused,
    seconds_of,
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


# Times


def test_a_file_without_frame_times_gets_even_ones(tmp_path):
    """AVI holds no presentation times, and B-frames make its packets come out of order."""
    clip = read_video(encode(tmp_path / "a.avi", smooth(12), "avi"), 12)
    assert seconds_of(clip) == [Fraction(i, 16) for i in range(12)]


def test_frames_that_an_edit_list_cuts_off_are_not_missed(tmp_path):
    """A phone trims a video by its edit list; the file still holds the frames before it."""
    path = encode(tmp_path / "a.mp4", smooth(16))
    whole, content = read_video(path, 16), bytearray(path.read_bytes())
    start = content.index(b"elst") + 12
    _, first = struct.unpack_from(">Ii", content, start)
    struct.pack_into(">Ii", content, start, 625, first + 6 * 1024)
    path.write_bytes(content)
    assert torch.equal(read_video(path, 16).frames, whole.frames[6:])


def test_a_real_clip_is_read():
    path = REAL_CLIPS / "vace_test2.mp4"
    if not path.exists():
        pytest.skip("no shared clips")
    clip = read_video(path, 25)
    assert clip.frames.shape == (25, 768, 512, 3) and clip.notes == ()
    assert clip.rate == 25 and len(clip.times) == 25


# The shape of a pixel


def stretched(path: Path, aspect: Fraction, form: str = "mp4") -> Path:
    with av.open(str(path), "w", format=form) as container:
        stream, fill = add_video(container, smooth(3))
        stream.codec_context.sample_aspect_ratio = aspect
        fill()
    return path


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9)])
def test_pixels_that_are_not_square_stay_so_and_are_said(tmp_path, form, aspect):
    clip = read_video(stretched(tmp_path / "a.mp4", aspect, form), 9)
    assert clip.pixel_aspect == aspect and clip.frames.shape[1:3] == (48, 64)
    (note,) = clip.notes
    assert f"not square but {aspect.numerator}:{aspect.denominator}; the edit keeps that" in note
    write_video(tmp_path / "b.mp4", clip.frames, clip)
    assert read_video(tmp_path / "b.mp4", 9).pixel_aspect == aspect


def test_square_pixels_are_not_mentioned(tmp_path):
    clip = read_video(stretched(tmp_path / "a.mp4", Fraction(1)), 9)
    assert clip.pixel_aspect == 1 and clip.notes == ()


def test_the_pixels_of_a_video_that_is_turned_are_turned_too(tmp_path):
    path = stretched(tmp_path / "a.mp4", Fraction(4, 3))
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    turn = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *turn)
    path.write_bytes(content)
    clip = read_video(path, 9)
    assert clip.frames.shape[1:3] == (64, 48) and clip.pixel_aspect == Fraction(3, 4)


# Transparency


def with_alpha(opacity: int) -> list[av.VideoFrame]:
    pixels = torch.cat([smooth(3), torch.full((3, 48, 64, 1), 255, dtype=torch.uint8)], -1)
    pixels[1, 20, 30, 3] = opacity  # one pixel of one frame
    return [av.VideoFrame.from_ndarray(frame.numpy(), "rgba") for frame in pixels]


ALPHA_FILES = [
    ("mov", "png", "rgba"),
    ("mov", "qtrle", "argb"),
    ("mov", "prores_ks", "yuva444p10le"),
    ("matroska", "ffv1", "yuva444p"),
]


@pytest.mark.parametrize("form, codec, pix_fmt", ALPHA_FILES)
def test_transparency_is_dropped_and_said(tmp_path, form, codec, pix_fmt):
    for name, opacity in (("clear", 0), ("opaque", 255)):
        path = encode(tmp_path / name, with_alpha(opacity), form, codec, pix_fmt=pix_fmt)
        clip = read_video(path, 9)
        assert clip.frames.shape == (3, 48, 64, 3)
        said = (f"{path}: its transparency is dropped",) if name == "clear" else ()
        assert clip.notes == said


def test_transparency_beside_a_webms_picture_is_said(tmp_path):
    """VP9 keeps it in a second picture, which its decoder leaves out."""
    path = tmp_path / "a.webm"
    encode(path, with_alpha(0), "webm", "libvpx-vp9", pix_fmt="yuva420p")
    assert read_video(path, 9).notes == (f"{path}: its transparency is dropped",)


@pytest.mark.parametrize("clear", [False, True])
def test_a_gif_says_whether_anything_shows_through(tmp_path, clear):
    frames = [Image.fromarray(f.numpy()).convert("P") for f in smooth(3)]
    for frame in frames:
        frame.info.pop("transparency", None)
    options = {"transparency": 0, "disposal": 2} if clear else {}
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=60, **options)
    clip = read_video(path, 9)
    assert len(clip.frames) == 3 and isinstance(clip, Clip)
    assert bool(clip.notes) == clear
    assert np.all([note.endswith("its transparency is dropped") for note in clip.notes])
