"""What is no mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlock.media.video import BadVideoError
from support.masks import FRAMES, HEIGHT, MOVING, STILL, WIDTH, grey, read, refused, saved


def test_another_aspect_is_refused_with_both_sizes(tmp_path):
    why = "the mask is 63x48, the clip 64x48, and their shapes differ; make a mask of 64x48$"
    refused(saved(tmp_path / "a.npy", MOVING[:, :, :-1]), why)
    refused(saved(tmp_path / "a.npy", MOVING.transpose(0, 2, 1)), "is 48x64, the clip 64x48")
    refused(saved(tmp_path / "a.npy", MOVING[:, :, :0]), "is 0x48, the clip 64x48")


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_frame_count_says_the_remedy(tmp_path, count):
    path = saved(tmp_path / "a.npy", np.resize(MOVING, (count, HEIGHT, WIDTH)))
    refused(path, f"has {count} frames, the clip 3; give 3 frames, or a single image")


def test_an_empty_mask_is_refused_after_inverting(tmp_path):
    empty = np.zeros_like(MOVING)
    refused(saved(tmp_path / "a.npy", empty), "the mask is empty; white marks what may be edited$")
    assert read(saved(tmp_path / "a.npy", empty), invert=True).all()
    refused(saved(tmp_path / "a.npy", ~empty), "is empty after it is inverted", invert=True)


def test_a_grey_picture_is_refused(tmp_path):
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8) * 4, (HEIGHT, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", r"not black and white \(\d+% of its pixels are grey\)")
    refused(saved(tmp_path / "a.npy", ramp), "not black and white")
    refused(saved(tmp_path / "a.npy", np.where(MOVING, 1, np.nan)), "not black and white")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_array_that_is_no_plain_array_is_refused(tmp_path):
    path, trace = tmp_path / "a.npy", tmp_path / "exploded"
    refused(saved(path, np.array([Bomb(trace)], dtype=object)), "cannot be read as an array")
    assert not trace.exists()
    refused(
        saved(path, np.zeros((1, FRAMES, HEIGHT, WIDTH))),
        r"shape \(1, 3, 48, 64\); expected \[F, H, W\] or",
    )
    refused(saved(path, np.full((HEIGHT, WIDTH), "x")), "not black and white")
    np.savez(tmp_path / "a.npz", MOVING)
    (tmp_path / "a.npz").replace(path)
    refused(path, "cannot be read as an array")
    for content in (b"", b"text", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        refused(path, "cannot be read as an array")


def test_an_array_whose_header_promises_too_much_is_refused(tmp_path):
    path = saved(tmp_path / "a.npy", MOVING)
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    refused(path, "cannot be read as an array")
    path.write_bytes(data.replace(b"(3, 48, 64), }      ", b"(3000000, 480, 640)}"))
    refused(path, "cannot be read as an array")


def test_missing_files_and_bad_pictures_are_refused(tmp_path):
    refused(tmp_path / "none.png", "no such mask file or folder")
    (tmp_path / "text.png").write_text("no picture")
    refused(tmp_path / "text.png", "cannot be read as an image")
    (tmp_path / "text.mp4").write_text("no video")
    refused(tmp_path / "text.mp4", "cannot be decoded as a video")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds no PNG or JPEG")
    for number in range(FRAMES):
        Image.fromarray(MOVING[0, : HEIGHT - number]).save(tmp_path / "folder" / f"{number}.png")
    refused(tmp_path / "folder", "images differ in size")


def test_a_mutated_picture_is_refused_or_read(tmp_path):
    good = {}
    for suffix in ("png", "jpg"):
        Image.fromarray(grey(STILL[0])).save(tmp_path / f"good.{suffix}")
        good[suffix] = (tmp_path / f"good.{suffix}").read_bytes()
    for seed in range(120):
        suffix, generator = ("png", "jpg")[seed % 2], np.random.default_rng(seed)
        data = bytearray(good[suffix])
        for spot in generator.integers(0, len(data), generator.integers(1, 4)):
            data[spot] = generator.integers(256)
        path = tmp_path / f"bad.{suffix}"
        path.write_bytes(data)
        try:
            read(path)
        except BadVideoError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), seed


def test_a_picture_with_a_cut_header_is_refused(tmp_path):
    """Pillow raises a plain ValueError here."""
    Image.fromarray(STILL[0]).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[11] = 5  # the length of the header's chunk
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", "cannot be read as an image")
