"""Arrays from npy and npz files; nothing pickled is ever loaded."""

from pathlib import Path

import numpy as np

from kvlock.media.clip import BadVideoError

NAMES = ("mask", "masks", "arr_0")  # of the array that is meant, where an npz holds several


def read_array(path: Path) -> np.ndarray:
    """[F, H, W] of an npy file, or of the one array, or that called mask or masks, of an npz.

    One picture [H, W] is one frame. Raises BadVideoError for anything else.
    """
    array = _npz_array(path) if path.suffix.lower() == ".npz" else _npy_array(path)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        shape = f"shape {array.shape}; expected [F, H, W] or [H, W]"
        raise BadVideoError(f"{path}: the array has {shape}")
    return array


def _npy_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file)  # npy and no pickle; np.load takes an npz, too
    except Exception as error:  # MemoryError, even, where a header promises a huge array
        raise BadVideoError(
            f"{path}: cannot be read as an array, so it is damaged or not what numpy.save writes"
        ) from error


def _npz_array(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = archive.files
            name = next((n for n in NAMES if n in held), held[0] if len(held) == 1 else None)
            if name is not None:
                return np.asarray(archive[name])
    except Exception as error:
        raise BadVideoError(
            f"{path}: cannot be read as an npz, so it is damaged or not what numpy.savez writes"
        ) from error
    names = ", ".join(held) or "none"
    raise BadVideoError(f"{path}: the npz holds the arrays {names}; call the one that counts mask")
