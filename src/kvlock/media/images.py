"""Picture files: PNG and JPEG, turned upright, 16 bits scaled to 8."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from kvlock.media.clip import MAX_PIXELS, BadVideoError, check_count, check_is_data

IMAGES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # EPS would be handed to a program
ORIENTATION = 0x0112  # EXIF's tag; the values from 2 on say how a picture is turned upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def frame_files(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder in numerical order. Raises BadVideoError for none."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGES]
    if not files:
        raise BadVideoError(f"{folder}: the folder holds no PNG or JPEG frames")
    return sorted(files, key=lambda f: (int("".join(filter(str.isdecimal, f.stem)) or 0), f.name))


def open_image(path: Path) -> Image.Image:
    """An image, decoded and upright; raises BadVideoError where it is none or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on EXIF that it cannot read, for one
            return _upright_image(path)
    except BadVideoError:
        raise
    except Exception as error:  # Pillow, too: OSError, SyntaxError, ValueError, bomb errors
        raise BadVideoError(
            f"{path}: cannot be read as an image, so it is damaged or neither PNG nor JPEG"
        ) from error


def read_frames(folder: Path, max_frames: int) -> tuple[np.ndarray, list[str]]:
    """A folder of frames as uint8 [F, H, W, 3], and notes.

    Raises BadVideoError for unequal sizes and too many frames.
    """
    files = frame_files(folder)
    check_count(folder, len(files), max_frames)
    frames, transparent = [], None
    for file in files:
        image = open_image(file)
        frames.append(_rgb(image))
        if frames[-1].shape != frames[0].shape:
            raise BadVideoError(
                f"{file}: its size differs from that of {files[0].name}; all frames must have "
                f"one size"
            )
        if transparent is None and alpha(image) is not None:
            transparent = file
    notes = [f"{transparent}: its transparency is dropped"] if transparent else []
    return np.stack(frames), notes


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow holds its greys in more than 8 bits, which it clips instead of scaling."""
    return image.mode.startswith("I")


def scaled_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers from 0 to 65535 -> uint8."""
    return np.rint(values / 257).clip(0, 255).astype(np.uint8)


def alpha(image: Image.Image) -> np.ndarray | None:
    """uint8 [H, W] where anything in the image is transparent, else None."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return None
    found = np.asarray(image.convert("RGBA"))[..., 3]
    return found if found.min() < 255 else None


def _upright_image(path: Path) -> Image.Image:
    check_is_data(path)
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        raise BadVideoError(f"{path}: {size} is larger than {MAX_PIXELS} pixels")
    image.load()
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF that cannot be read turns nothing
        return 1


def _rgb(image: Image.Image) -> np.ndarray:
    if is_deep(image):
        return np.repeat(scaled_to_8_bits(np.asarray(image))[..., None], 3, axis=-1)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return np.asarray(image.convert("RGB"))
