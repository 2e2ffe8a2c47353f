"""Pictures as frames: upright, 16 bits scaled, what is dropped said."""

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.video import BadVideoError, read_video
from support.clips import smooth

PICTURE = smooth(1)[0].numpy()
# EXIF's orientation: what its standard calls the first row and the first column as they are shown.
STORED = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: PICTURE.transpose(1, 0, 2)[::-1],
    7: PICTURE.transpose(1, 0, 2)[::-1, ::-1],
    8: PICTURE.transpose(1, 0, 2)[:, ::-1],
}


def save(path, picture: np.ndarray, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(picture)).save(path, exif=exif, quality=100, subsampling=0)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix, off", [("png", 0), ("jpg", 4)])
def test_a_frame_is_turned_upright_by_its_exif(tmp_path, orientation, suffix, off):
    """A phone stores what its sensor saw."""
    save(tmp_path / f"1.{suffix}", PICTURE)
    save(tmp_path / f"2.{suffix}", STORED[orientation], orientation)
    clip = read_video(tmp_path, 2)
    assert clip.frames.shape == (2, *PICTURE.shape) and clip.notes == ()
    assert int((clip.frames[1].int() - torch.from_numpy(PICTURE)).abs().max()) <= off


@pytest.mark.parametrize("exif", [b"Exif\0\0not a tiff", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_exif_that_says_nothing_turns_nothing(tmp_path, exif):
    Image.fromarray(PICTURE).save(tmp_path / "1.jpg", exif=exif, quality=100, subsampling=0)
    assert read_video(tmp_path, 1).frames.shape == (1, *PICTURE.shape)


def test_frames_of_16_bits_are_scaled_and_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "1.png")
    assert Image.open(tmp_path / "1.png").mode.startswith("I")
    (frame,) = read_video(tmp_path, 1).frames
    assert torch.equal(frame, frame[..., :1].expand(-1, -1, 3))
    assert np.abs(frame[..., 0].numpy() - levels / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_a_picture_of_any_mode_is_read_in_its_colours(tmp_path, mode):
    half = np.zeros((48, 64, 3), np.uint8)
    half[:, 32:] = 255
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(half).convert(mode).save(tmp_path / f"1.{suffix}", quality=100)
    clip = read_video(tmp_path, 1)
    assert int((clip.frames[0].int() - torch.from_numpy(half).int()).abs().max()) <= 3
    assert clip.notes == ()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("opacity", [0, 200, 255])
def test_transparency_is_dropped_and_said_once(tmp_path, mode, opacity):
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[5, 7] = opacity
    for number in range(3):
        pixels = Image.fromarray(np.dstack([PICTURE, alpha if number else alpha * 0 + 255]))
        if mode == "P":
            shown = Image.fromarray(np.uint8(alpha < 255)).convert("P")
            levels = bytes([255, opacity]) if number else bytes([255, 255])
            shown.save(tmp_path / f"{number}.png", transparency=levels)
        else:
            pixels.convert(mode).save(tmp_path / f"{number}.png")
    clip = read_video(tmp_path, 3)
    said = (f"{tmp_path / '1.png'}: its transparency is dropped",) if opacity < 255 else ()
    assert clip.frames.shape == (3, 48, 64, 3) and clip.notes == said


def test_a_huge_image_is_refused_from_its_header(tmp_path):
    Image.new("1", (4112, 4096)).save(tmp_path / "1.png")
    with pytest.raises(BadVideoError, match=r"1\.png: 4112x4096 is larger than \d+ pixels$"):
        read_video(tmp_path, 9)
