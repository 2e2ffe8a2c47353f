"""Colours through their tags, and how a picture is turned upright."""

import struct

import av
import numpy as np
import pytest
import torch

from kvlock.media.colour import turned
from kvlock.media.video import read_video, write_video
from support.clips import encode, flat, like, noisy, psnr, refused, smooth

LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 0, 255),
    (255, 255, 255),
    (200, 30, 90),
]


def off_by(frames: torch.Tensor, colour) -> int:
    return int((frames.int() - torch.as_tensor(colour).int()).abs().max())


@pytest.mark.parametrize("colour", COLOURS)
def test_saturated_colours_survive_the_default_encoding(tmp_path, colour):
    write_video(tmp_path / "a.mp4", flat(colour), like(3))
    assert off_by(read_video(tmp_path / "a.mp4", 3).frames, colour) <= 3


def test_the_file_is_tagged_bt709_and_holds_bt709(tmp_path):
    write_video(tmp_path / "a.mp4", flat((255, 0, 0)), like(3))
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc)
        assert tags == (1, 1, 1) and context.color_range == 1
        luma = next(container.decode(video=0)).to_ndarray()[:48]
    assert abs(float(luma.mean()) - (16 + 219 * 0.2126)) < 1.5  # bt601 red would be 82


def yuv(colour, matrix: str, full: bool, tag: int, form: str = "yuv420p") -> av.VideoFrame:
    """A flat frame whose Y, Cb and Cr come from the standard's own formula."""
    red, blue = LUMA[matrix]
    r, g, b = (c / 255 for c in colour)
    y = red * r + (1 - red - blue) * g + blue * b
    values = (y, (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red)))
    scales = ((255, 0), (255, 128), (255, 128)) if full else ((219, 16), (224, 128), (224, 128))
    frame = av.VideoFrame(64, 48, form)
    deeper = 2 ** (frame.format.components[0].bits - 8)
    top, dtype = 256 * deeper - 1, "<u2" if deeper > 1 else np.uint8
    for plane, value, (scale, offset) in zip(frame.planes, values, scales):
        level = min(top, round((value * scale + offset) * deeper))
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, level, dtype).tobytes())
    frame.colorspace, frame.color_range = tag, 2 if full else 1
    return frame


TAGS = [("bt709", 1), ("bt601", 6), ("bt601", 5), ("bt601", 2), ("bt2020", 9)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix, tag", TAGS)
@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le", "yuv422p16le"])
def test_a_file_is_read_through_its_own_colour_tags(tmp_path, matrix, tag, full, form):
    for colour in COLOURS:
        frames = [yuv(colour, matrix, full, tag, form)] * 2
        path = encode(tmp_path / "a.mkv", frames, "matroska", "ffv1", pix_fmt=form)
        assert off_by(read_video(path, 2).frames, colour) <= 3, colour


def test_untagged_video_of_720_lines_is_bt709(tmp_path):
    small = yuv((255, 0, 0), "bt709", False, 2)
    large = av.VideoFrame(16, 720, "yuv420p")
    for plane, original in zip(large.planes, small.planes):
        plane.update(bytes([bytes(original)[0]]) * plane.buffer_size)
    clip = read_video(encode(tmp_path / "a.mkv", [large], "matroska", "ffv1"), 1)
    assert off_by(clip.frames, (255, 0, 0)) <= 3


def test_hdr_is_refused(tmp_path):
    frame = yuv((255, 0, 0), "bt2020", False, 9)
    frame.color_trc = 16
    refused(encode(tmp_path / "a.mkv", [frame] * 2, "matroska", "ffv1"), "HDR")


# More than 8 bits


def stripes() -> torch.Tensor:
    """Colours that change as fast as half the picture's chroma can follow, uint8 [2, 48, 64, 3]."""
    x = torch.arange(64).expand(2, 48, 64)
    planes = [torch.sin(x / 3 + shift) * 90 + 128 for shift in (0, 2, 4)]
    return torch.stack(planes, -1).round().to(torch.uint8)


def planar(frames: torch.Tensor, bits: int, across: int, down: int) -> list[av.VideoFrame]:
    """bt709 YCbCr of that many bits, chroma averaged over blocks, by the standard's formula."""
    red, blue = LUMA["bt709"]
    scale, made = 2 ** (bits - 8), []
    for r, g, b in (frames.double() / 255).permute(0, 3, 1, 2):
        y = red * r + (1 - red - blue) * g + blue * b
        chroma = ((b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red)))
        pooled = [torch.nn.functional.avg_pool2d(c[None], (down, across))[0] for c in chroma]
        levels = [219 * y + 16, *(224 * c + 128 for c in pooled)]
        form = {(2, 2): "yuv420p", (2, 1): "yuv422p", (1, 1): "yuv444p"}[across, down]
        frame = av.VideoFrame(64, 48, form + ("" if bits == 8 else f"{bits}le"))
        for plane, level in zip(frame.planes, levels):
            values = (level * scale).round().numpy().astype(np.uint8 if bits == 8 else "<u2")
            rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.colorspace, frame.color_range = 1, 1
        made.append(frame)
    return made


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("across, down", [(2, 2), (2, 1), (1, 1)])
def test_chroma_of_more_than_8_bits_is_interpolated(tmp_path, bits, across, down):
    """swscale's short cut, which repeats it, comes to 26 dB here."""
    frames = planar(stripes(), bits, across, down)
    form = frames[0].format.name
    path = encode(tmp_path / "a.mkv", frames, "matroska", "ffv1", pix_fmt=form)
    assert psnr(read_video(path, 2).frames, stripes()) > (40 if across == 2 else 55)


@pytest.mark.parametrize("form", ["gbrp10le", "gbrp16le", "rgb48le"])
def test_rgb_of_more_than_8_bits_is_rounded(tmp_path, form):
    colours = noisy(2)
    frames = [av.VideoFrame.from_ndarray(f.numpy()).reformat(format=form) for f in colours]
    path = encode(tmp_path / "a.mkv", frames, "matroska", "ffv1", pix_fmt=form)
    assert off_by(read_video(path, 2).frames, colours) <= 1


# Display matrices


def shown(picture: np.ndarray, matrix) -> np.ndarray:
    """Pixel by pixel: a stored (x, y) goes to (x, y) @ matrix, and the corner back to zero."""
    height, width = picture.shape[:2]
    spots = {(x, y): np.array([x, y]) @ matrix for x in range(width) for y in range(height)}
    least = np.min(list(spots.values()), axis=0)
    size = np.max(list(spots.values()), axis=0) - least + 1
    result = np.zeros((size[1], size[0], 3), picture.dtype)
    for (x, y), spot in spots.items():
        result[tuple((spot - least)[::-1])] = picture[y, x]
    return result


UPRIGHT = [
    np.array(rows) * signs
    for rows in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    for signs in ([[a], [b]] for a in (1, -1) for b in (1, -1))
]


@pytest.mark.parametrize("matrix", UPRIGHT)
def test_a_picture_is_turned_and_mirrored_as_the_matrix_says(matrix):
    picture = noisy(1, 4, 6)[0].numpy()
    assert np.array_equal(turned(picture, matrix * 1.0), shown(picture, matrix))


def with_matrix(path, matrix) -> None:
    """Write a display matrix into an mp4's track header, where phones have it."""
    data = bytearray(path.read_bytes())
    (a, b), (c, d) = (np.array(matrix) * 65536).astype(int).tolist()
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("matrix", UPRIGHT)
def test_a_video_is_shown_by_its_display_matrix(tmp_path, matrix):
    path = encode(tmp_path / "a.mp4", smooth(3))
    stored = read_video(path, 9).frames
    with_matrix(path, matrix)
    clip = read_video(path, 9)
    assert clip.notes == ()
    for before, after in zip(stored, clip.frames):
        assert np.array_equal(after.numpy(), shown(before.numpy(), matrix))


@pytest.mark.parametrize("matrix, turns", [([[0, 1], [-1, 0]], 3), ([[0, -1], [1, 0]], 1)])
def test_a_phones_quarter_turns(tmp_path, matrix, turns):
    """(0, 1, -1, 0) turns clockwise, which is three quarters the other way."""
    path = encode(tmp_path / "a.mp4", smooth(3))
    stored = read_video(path, 9).frames
    with_matrix(path, matrix)
    assert torch.equal(read_video(path, 9).frames, stored.rot90(turns, dims=(1, 2)))


def test_a_tilted_video_is_read_as_stored_and_says_so(tmp_path):
    path = encode(tmp_path / "a.mp4", smooth(3))
    stored = read_video(path, 9).frames
    with_matrix(path, [[0.7071, 0.7071], [-0.7071, 0.7071]])
    clip = read_video(path, 9)
    assert clip.frames.shape == stored.shape
    assert clip.notes == (f"{path}: it is to be shown tilted, which is not followed",)
