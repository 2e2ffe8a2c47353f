"""Masks to write, and how a test reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.mask_files import MaskFile, read_mask
from kvlock.media.video import BadVideoError

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
