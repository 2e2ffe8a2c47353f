"""Masks from every kind of file, and what is none."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.mask_files import MaskFile, dilate_mask, read_mask
from kvlock.media.video import BadVideoError, Clip, write_video
from support.clips import REAL_CLIPS

FRAMES, HEIGHT, WIDTH = 3, 48, 64
MOVING = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
for index in range(FRAMES):
    MOVING[index, 8:24, 8 + 8 * index : 24 + 8 * index] = True
STILL = MOVING[:1]
REPEATED = np.repeat(STILL, FRAMES, 0)


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def read_with_notes(path: Path, **kwargs) -> tuple[np.ndarray, tuple[str, ...]]:
    found = read_mask(path, FRAMES, HEIGHT, WIDTH, **kwargs)
    assert isinstance(found, MaskFile) and found.mask.dtype == torch.bool
    assert found.mask.shape == (FRAMES, HEIGHT, WIDTH) and found.mask.is_contiguous()
    assert all(note.startswith(f"{path}: ") and "\n" not in note for note in found.notes)
    return found.mask.numpy(), found.notes


def read(path: Path, **kwargs) -> np.ndarray:
    """Of a file that needs no explanation."""
    mask, notes = read_with_notes(path, **kwargs)
    assert notes == ()
    return mask


def refused(path: Path, why: str, **kwargs) -> None:
    with pytest.raises(BadVideoError, match=why) as caught:
        read(path, **kwargs)
    assert str(caught.value).startswith(f"{path}") and "\n" not in str(caught.value)


def saved(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        Image.fromarray(array).save(path)
    return path


# What a mask may be


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
    assert Image.open(tmp_path / "mask.png").mode == picture(STILL[0]).mode
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


# Palettes

BLACK, WHITE, RED, GREEN, GREY = (0, 0, 0), (255,) * 3, (128, 0, 0), (0, 128, 0), (128,) * 3
OFF_BLACK, OFF_WHITE = (9, 7, 8), (246, 250, 248)


def palette_image(indices: np.ndarray, *colours) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([level for colour in colours for level in colour])
    assert image.mode == "P"
    return image


@pytest.mark.parametrize(
    "colours, marked",
    [
        ((BLACK, RED), 1),  # DAVIS: the object in a dark red that luminance would call black
        ((BLACK, WHITE), 1),
        ((WHITE, BLACK), 0),  # sorted by how often a colour occurs, or as the painter had them
        ((OFF_WHITE, OFF_BLACK), 0),
        ((OFF_BLACK, OFF_WHITE), 1),
        ((BLACK, GREY), 1),  # DAVIS' seventh object
        ((BLACK, WHITE, RED, GREEN), 1),
        ((WHITE, BLACK, RED, GREEN), 0),
    ],
)
@pytest.mark.parametrize("bits", [None, 8])
def test_a_palette_of_two_colours(tmp_path, colours, marked, bits):
    """Index 1 inside the square and index 0 around it; `marked` is the one that is the mask."""
    options = {"bits": bits} if bits else {}
    palette_image(STILL[0], *colours).save(tmp_path / "a.png", **options)
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED == bool(marked))


def test_all_objects_of_a_davis_palette_are_marked_in_every_frame(tmp_path):
    """Three objects, the third in grey; one frame shows none, and another only the third."""
    davis = (BLACK, RED, GREEN, GREY)
    objects = np.zeros((FRAMES, HEIGHT, WIDTH), int)
    objects[0, 4:8, 4:8], objects[0, 9:12, 3:30], objects[0, 20:24, 40:44] = 1, 2, 3
    objects[2, 30:40, 30:40] = 3
    for number, picture in enumerate(objects):
        palette_image(picture, *davis).save(tmp_path / f"{number}.png")
    assert np.array_equal(read(tmp_path), objects > 0)


def test_black_and_white_with_many_shades_by_luminance(tmp_path):
    """A JPEG's noise, reduced to a palette whose first colour happens to be black."""
    shades = [(i, i, i) for i in (*range(8), *range(248, 256))]
    noise = np.random.default_rng(0).integers(0, 8, STILL[0].shape)
    palette_image(noise + 8 * STILL[0], *shades).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


def test_a_coloured_palette_that_does_not_begin_with_black_is_refused(tmp_path):
    """Which of its colours is the mask cannot be known."""
    palette_image(STILL[0], (255, 0, 0), WHITE).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "not black and white")


def test_a_transparent_palette_by_its_alpha(tmp_path):
    image = palette_image(STILL[0], WHITE, RED)
    image.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


# Numbers instead of shades


@pytest.mark.parametrize("dtype, largest", [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1)])
def test_a_picture_of_small_numbers_is_taken_and_said(tmp_path, dtype, largest):
    numbers = STILL[0].astype(dtype)
    numbers[STILL[0]] = np.resize(np.arange(1, largest + 1), STILL.sum())
    mask, (note,) = read_with_notes(saved(tmp_path / "a.png", numbers))
    assert np.array_equal(mask, REPEATED)
    assert f"go from 0 to {largest} and not to 255" in note and "above 0 is taken" in note
    mask, (note,) = read_with_notes(tmp_path / "a.png", invert=True)
    assert np.array_equal(mask, ~REPEATED)


def test_a_folder_is_of_small_numbers_only_if_all_its_pictures_are(tmp_path):
    """A frame without the object holds noise, and a frame with it is white."""
    pictures = grey(MOVING)
    pictures[1] = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
    for number, picture in enumerate(pictures):
        saved(tmp_path / f"{number}.png", picture)
    expected = MOVING.copy()
    expected[1] = False
    assert np.array_equal(read(tmp_path), expected)
    for number, picture in enumerate(MOVING.astype(np.uint8)):
        saved(tmp_path / f"{number}.png", picture)
    mask, (note,) = read_with_notes(tmp_path)
    assert np.array_equal(mask, MOVING) and "go from 0 to 1" in note


def test_eight_bits_kept_in_sixteen_are_small_numbers(tmp_path):
    mask, (note,) = read_with_notes(saved(tmp_path / "a.png", grey(STILL[0]).astype(np.uint16)))
    assert np.array_equal(mask, REPEATED) and "above 0 is taken" in note


def test_a_lossy_picture_of_small_numbers_is_empty_and_says_what_it_holds(tmp_path):
    """There they are noise; nothing advises to mark everything."""
    Image.fromarray(STILL[0] * np.uint8(6)).save(tmp_path / "a.jpg", quality=100)
    refused(tmp_path / "a.jpg", r"empty; white marks.*; its brightest value is \d+ of 255$")
    frames = torch.from_numpy(np.repeat(MOVING[..., None], 3, -1).astype(np.uint8))
    like = Clip(frames, Fraction(16), tuple(range(FRAMES)), Fraction(1, 16), tmp_path)
    write_video(tmp_path / "a.mp4", frames, like, lossless=True)
    refused(tmp_path / "a.mp4", "its brightest value is 1 of 255")


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
    mask = torch.from_numpy(MOVING)
    assert torch.equal(dilate_mask(mask, 0), mask)


def test_a_negative_dilation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dilate is -1; expected 0 or more"):
        read(saved(tmp_path / "a.npy", MOVING), dilate=-1)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_larger_mask_of_the_same_aspect_is_scaled_and_all_that_it_marks_stays(tmp_path, factor):
    large = np.zeros((FRAMES, HEIGHT * factor, WIDTH * factor), bool)
    spots = np.random.default_rng(0).integers(0, large.shape, (30, 3))
    large[tuple(spots.T)] = True
    expected = np.zeros_like(MOVING)
    expected[tuple((spots // (1, factor, factor)).T)] = True
    mask, (note,) = read_with_notes(saved(tmp_path / "a.npy", large))
    assert np.array_equal(mask, expected)
    size = f"{WIDTH * factor}x{HEIGHT * factor}"
    assert f"the mask is {size}, the clip 64x48; the mask is scaled" in note


def test_a_smaller_mask_is_scaled_to_whole_blocks(tmp_path):
    mask, (note,) = read_with_notes(saved(tmp_path / "a.npy", MOVING[:, ::4, ::4]))
    assert np.array_equal(mask, MOVING) and "16x12" in note


@pytest.mark.parametrize("size", [(97, 129), (95, 127), (24, 32), (47, 63), (480, 641)])
def test_a_mask_is_scaled_in_any_ratio_and_after_it_is_inverted(tmp_path, size):
    """One marked pixel falls on every pixel of the clip that it touches."""
    mask = np.zeros((1, *size), bool)
    mask[0, size[0] // 3, size[1] // 2] = True
    rows, columns = (
        slice(p * to // own, -(-(p + 1) * to // own))
        for p, own, to in zip((size[0] // 3, size[1] // 2), size, (HEIGHT, WIDTH))
    )
    expected = np.zeros_like(MOVING)
    expected[:, rows, columns] = True
    found, _ = read_with_notes(saved(tmp_path / "a.npy", mask))
    assert np.array_equal(found, expected)
    found, _ = read_with_notes(saved(tmp_path / "a.npy", ~mask), invert=True)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_is_turned_upright_by_its_exif(tmp_path, orientation):
    stored = Image.fromarray(grey(STILL[0]))
    turn = {3: 180, 6: 90, 8: 270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.rotate(turn, expand=True).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


def test_what_its_video_says_is_passed_on(tmp_path):
    """A gif without an end mark, that is."""
    images = [Image.fromarray(m) for m in grey(MOVING)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=60)
    path.write_bytes(path.read_bytes()[:-1])
    mask, (note,) = read_with_notes(path)
    assert np.array_equal(mask, MOVING) and "no end mark" in note


# What is no mask


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
