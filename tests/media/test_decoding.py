"""What a file says beside its pixels: times, the shape of a pixel, transparency."""

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
    add_video,
    encode,
    seconds_of,
    smooth,
)

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
