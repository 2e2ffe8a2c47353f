from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlock.media.mask import dilate_mask, read_mask
from kvlock.media.video import BadVideoError, Clip, write_video

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
FRAMES, HEIGHT, WIDTH = 3, 48, 64
MOVING = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
for index in range(FRAMES):
    MOVING[index, 8:24, 8 + 8 * index : 24 + 8 * index] = True
STILL = MOVING[:1]


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def read(path: Path, **kwargs) -> np.ndarray:
    mask = read_mask(path, FRAMES, HEIGHT, WIDTH, **kwargs)
    assert mask.dtype == bool and mask.shape == (FRAMES, HEIGHT, WIDTH)
    return mask


def refused(path: Path, why: str, **kwargs) -> None:
    with pytest.raises(BadVideoError, match=why) as caught:
        read(path, **kwargs)
    assert str(caught.value).startswith(f"{path}") and "\n" not in str(caught.value)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


# What a mask may be


def test_a_video(tmp_path):
    frames = np.repeat(grey(MOVING)[..., None], 3, -1)
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
    return Image.fromarray(np.dstack([*[grey(mask)] * 3, np.full(mask.shape, 255, np.uint8)]))


def as_palette(mask: np.ndarray) -> Image.Image:
    """DAVIS: index 1 is the object, drawn in a dark red that luminance would call black."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    assert image.mode == "P"
    return image


def as_bilevel(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(grey(mask)).convert("1")


def as_sixteen_bits(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16) * 65535)


@pytest.mark.parametrize("picture", [as_rgb, as_alpha, as_opaque, as_palette, as_bilevel, as_sixteen_bits])
def test_a_single_image_for_all_frames(tmp_path, picture):
    picture(STILL[0]).save(tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").mode == picture(STILL[0]).mode
    assert np.array_equal(read(tmp_path / "mask.png"), np.repeat(STILL, FRAMES, 0))


@pytest.mark.parametrize("dtype, white", [(bool, 1), (np.uint8, 1), (np.uint8, 255), (np.float32, 1), (np.int64, 255)])
def test_an_array(tmp_path, dtype, white):
    assert np.array_equal(read(saved(tmp_path / "a.npy", (MOVING * white).astype(dtype))), MOVING)
    still = np.repeat(STILL, FRAMES, 0)
    assert np.array_equal(read(saved(tmp_path / "a.npy", (STILL[0] * white).astype(dtype))), still)
    assert np.array_equal(read(saved(tmp_path / "a.npy", (STILL * white).astype(dtype))), still)


def test_the_masks_of_real_clips():
    if not CLIPS.exists():
        pytest.skip("no shared clips")
    mask = read_mask(CLIPS / "editctrl_03_mask.mp4", 49, 480, 720)
    assert mask.shape == (49, 480, 720) and 0.15 < mask.mean() < 0.35
    assert (mask[0] != mask[-1]).any()
    width, height = Image.open(CLIPS / "vace_test2.png").size
    still = read_mask(CLIPS / "vace_test2.png", 25, height, width)
    assert 0.01 < still.mean() < 0.99 and (still == still[:1]).all()


# What is done to it


def test_invert(tmp_path):
    assert np.array_equal(read(saved(tmp_path / "a.npy", MOVING), invert=True), ~MOVING)


def test_dilate_grows_by_pixels_on_every_side_and_after_inverting(tmp_path):
    path = saved(tmp_path / "a.npy", MOVING)
    expected = np.zeros_like(MOVING)
    for frame, y, x in np.argwhere(MOVING):
        expected[frame, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
    assert np.array_equal(read(path, dilate=3), expected)
    assert np.array_equal(read(saved(path, ~MOVING), invert=True, dilate=3), expected)


def test_dilating_by_nothing_changes_nothing():
    assert np.array_equal(dilate_mask(MOVING, 0), MOVING)


def test_a_negative_dilation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dilate is -1; expected 0 or more"):
        read(saved(tmp_path / "a.npy", MOVING), dilate=-1)


# What is no mask


def test_a_wrong_size_tells_the_remedy(tmp_path):
    refused(saved(tmp_path / "a.npy", MOVING[:, :, :-1]), r"63x48, the clip 64x48; scale the mask to 64x48$")


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_frame_count_tells_the_remedy(tmp_path, count):
    path = saved(tmp_path / "a.npy", np.resize(MOVING, (count, HEIGHT, WIDTH)))
    refused(path, f"has {count} frames, the clip 3; give 3 frames, or a single image")


def test_an_empty_mask_is_refused_after_inverting(tmp_path):
    empty = np.zeros_like(MOVING)
    refused(saved(tmp_path / "a.npy", empty), "empty.*--invert-mask")
    assert read(saved(tmp_path / "a.npy", empty), invert=True).all()
    refused(saved(tmp_path / "a.npy", ~empty), "empty", invert=True)


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
    refused(saved(path, np.zeros((1, FRAMES, HEIGHT, WIDTH))), r"shape \(1, 3, 48, 64\); expected \[F, H, W\] or")
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
        for place in generator.integers(0, len(data), generator.integers(1, 4)):
            data[place] = generator.integers(256)
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
