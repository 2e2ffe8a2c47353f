"""Numbered objects in palettes, label pictures and arrays; alpha of videos; npz."""

import av
import numpy as np
import pytest
from PIL import Image

from support.clips import encode, video_frames
from support.masks import FRAMES, HEIGHT, MOVING, WIDTH, read, refused, saved

NUMBERS = np.where(MOVING, 1, np.where(MOVING[:, ::-1], 3, 0)).astype(np.uint8)


def palettes(folder, numbers: np.ndarray = NUMBERS):
    folder.mkdir()
    for t, frame in enumerate(numbers):
        image = Image.fromarray(frame, mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        image.save(folder / f"{t:05}.png")
    return folder


def test_one_object_or_several_of_davis_palettes(tmp_path):
    folder = palettes(tmp_path / "davis")
    assert np.array_equal(read(folder, objects=(1,)), NUMBERS == 1)
    assert np.array_equal(read(folder, objects=(3,)), NUMBERS == 3)
    assert np.array_equal(read(folder, objects=(1, 3)), NUMBERS > 0)
    assert np.array_equal(read(folder), NUMBERS > 0)
    refused(folder, "there is no object 2 in it; it has 1, 3", objects=(2,))


@pytest.mark.parametrize("name", ["labels.npy", "labels.npz"])
def test_arrays_of_labels(tmp_path, name):
    path = tmp_path / name
    np.savez(path, mask=NUMBERS) if path.suffix == ".npz" else np.save(path, NUMBERS)
    assert np.array_equal(read(path, objects=(3,)), NUMBERS == 3)


def test_an_npz_with_one_array_or_one_called_mask(tmp_path):
    np.savez(tmp_path / "one.npz", anything=MOVING)
    np.savez_compressed(tmp_path / "two.npz", mask=MOVING, depth=NUMBERS)
    np.savez(tmp_path / "which.npz", a=MOVING, b=MOVING)
    assert np.array_equal(read(tmp_path / "one.npz"), MOVING)
    assert np.array_equal(read(tmp_path / "two.npz"), MOVING)
    refused(tmp_path / "which.npz", "holds the arrays a, b; call the one that counts mask")


def test_a_pickle_in_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "p.npz", mask=np.array([{"a": 1}], object))
    refused(tmp_path / "p.npz", "cannot be read as an npz")


def test_pictures_and_videos_without_numbers(tmp_path):
    colours = saved(tmp_path / "rgb.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    refused(colours, "a picture in RGB", objects=(1,))
    refused(saved(tmp_path / "b.npy", MOVING), "--object needs whole numbers", objects=(1,))
    video = encode(tmp_path / "v.mp4", video_frames(_rgba(MOVING)))
    refused(video, "--object picks numbered objects", objects=(1,))


def _rgba(mask: np.ndarray) -> list[av.VideoFrame]:
    picture = np.full((FRAMES, HEIGHT, WIDTH, 4), 90, np.uint8)
    picture[..., 3] = mask * 255
    return [av.VideoFrame.from_ndarray(np.ascontiguousarray(p), "rgba") for p in picture]


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgba"), ("prores_ks", "yuva444p10le")])
def test_the_alpha_of_a_clip(tmp_path, codec, pix_fmt):
    path = encode(tmp_path / "a.mov", _rgba(MOVING), form="mov", codec=codec, pix_fmt=pix_fmt)
    assert np.array_equal(read(path), MOVING)


def test_a_clip_whose_alpha_says_nothing_is_read_by_its_luminance(tmp_path):
    picture = np.repeat(MOVING[..., None], 4, -1).astype(np.uint8) * 255
    picture[..., 3] = 255
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(p), "rgba") for p in picture]
    path = encode(tmp_path / "a.mov", frames, form="mov", codec="png", pix_fmt="rgba")
    assert np.array_equal(read(path), MOVING)
