"""Masks from every kind of file."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.mask_files import read_mask
from kvlock.media.video import Clip, write_video
from support.clips import REAL_CLIPS
from support.masks import (
    FRAMES,
    MOVING,
    REPEATED,
    STILL,
    grey,
    read,
    saved,
)


def test_a_video(tmp_path):
    frames = torch.from_numpy(np.repeat(grey(MOVING)[..., None], 3, -1))
    like = Clip(frames, Fraction(16), tuple(range(FRAMES)), Fraction(1, 16), tmp_path)
    write_video(tmp_path / "lossless.mp4", frames, like, lossless=True)
    assert np.array_equal(read(tmp_path / "lossless.mp4"), MOVING)
    write_video(tmp_path / "lossy.mp4", frames, like)
    assert np.array_equal(read(tmp_path / "lossy.mp4"), MOVING)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_folder_in_numerical_order(tmp_path, suffix):
    for number, mask in zip((2, 10, 11), grey(MOVING)):
        Image.fromarray(mask).save(tmp_path / f"{number}.{suffix}", quality=60)
    assert np.array_equal(read(tmp_path), MOVING)


def as_rgb(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.repeat(grey(mask)[..., None], 3, -1))


def as_alpha(mask: np.ndarray) -> Image.Image:
    """The colours say nothing, the alpha everything."""
    noise = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), np.uint8)
    return Image.fromarray(np.dstack([noise, grey(mask)]))


def as_opaque(mask: np.ndarray) -> Image.Image:
    """An alpha that hides nothing is not the mask."""
    opaque = np.full(mask.shape, 255, np.uint8)
    return Image.fromarray(np.dstack([*[grey(mask)] * 3, opaque]))


def as_bilevel(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(grey(mask)).convert("1")


def as_sixteen_bits(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16) * 65535)


def as_dim_sixteen_bits(mask: np.ndarray) -> Image.Image:
    """A dark grey background, which is white when it is clipped to 8 bits."""
    return Image.fromarray(np.where(mask, 60000, 8000).astype(np.uint16))


PICTURES = [as_rgb, as_alpha, as_opaque, as_bilevel, as_sixteen_bits, as_dim_sixteen_bits]


@pytest.mark.parametrize("picture", PICTURES)
def test_a_single_image_for_all_frames(tmp_path, picture):
    picture(STILL[0]).save(tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").mode[0] == picture(STILL[0]).mode[0]
    assert np.array_equal(read(tmp_path / "mask.png"), REPEATED)


def sixteen_bit_png(path: Path, values: np.ndarray, colour_type: int) -> Path:
    """Grey with alpha (4), RGB (2) or RGBA (6) in 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_sixteen_bits_a_channel_are_scaled(tmp_path):
    mask = np.where(STILL[0], 60000, 8000)
    white = np.full_like(mask, 65535)
    for colour_type, planes in ((2, [mask] * 3), (4, [mask, white]), (6, [mask] * 3 + [white])):
        path = sixteen_bit_png(tmp_path / "a.png", np.stack(planes, -1), colour_type)
        assert np.array_equal(read(path), REPEATED), colour_type
    path = sixteen_bit_png(tmp_path / "a.png", np.stack([white, mask], -1), 4)
    assert np.array_equal(read(path), REPEATED)  # the alpha


@pytest.mark.parametrize(
    "dtype, white",
    [(bool, 1), (np.uint8, 1), (np.uint8, 255), (np.float32, 1), (np.int64, 255), ("<u2", 65535)],
)
def test_an_array(tmp_path, dtype, white):
    path = tmp_path / "a.npy"
    assert np.array_equal(read(saved(path, (MOVING * white).astype(dtype))), MOVING)
    assert np.array_equal(read(saved(path, (STILL[0] * white).astype(dtype))), REPEATED)
    assert np.array_equal(read(saved(path, (STILL * white).astype(dtype))), REPEATED)


def test_the_masks_of_real_clips():
    if not REAL_CLIPS.exists():
        pytest.skip("no shared clips")
    mask, notes = read_mask(REAL_CLIPS / "editctrl_03_mask.mp4", 49, 480, 720)
    assert mask.shape == (49, 480, 720) and 0.15 < mask.float().mean() < 0.35 and notes == ()
    assert (mask[0] != mask[-1]).any()
    width, height = Image.open(REAL_CLIPS / "vace_test2.png").size
    still, notes = read_mask(REAL_CLIPS / "vace_test2.png", 25, height, width)
    assert 0.01 < still.float().mean() < 0.99 and (still == still[:1]).all() and notes == ()
