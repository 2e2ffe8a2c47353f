"""Cases of masks: every kind that is right, and what is none."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from benchmarks.faults.case import Case
from benchmarks.faults.clips import HEIGHT, HOLE, WIDTH, hole, numbered
from benchmarks.faults.outcome import RIGHT, Outcome, frames_of, passed, refused
from benchmarks.faults.reading import KEPT_BEYOND, beyond
from benchmarks.faults.world import FRAMES, World, edit_words, save_mask
from PIL import Image


def _palette(path: Path, mask: np.ndarray, colours: list[int]) -> None:
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette(colours)
    image.save(path)


def _alpha(path: Path, mask: np.ndarray) -> None:
    picture = np.full((*mask.shape, 4), 90, np.uint8)
    picture[..., 3] = mask * 255
    Image.fromarray(picture, "RGBA").save(path)


def _deep(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint16) * 65535).save(path)


def _video(path: Path, masks: np.ndarray, codec: str = "libx264") -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=16)
        stream.height, stream.width = masks.shape[1:]
        stream.pix_fmt = "yuv420p"
        for mask in masks:
            grey = np.repeat(mask.astype(np.uint8)[..., None] * 255, 3, axis=-1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode())


def _folder(path: Path, masks: np.ndarray) -> None:
    path.mkdir()
    for number, mask in enumerate(masks):
        save_mask(path / f"{number}.png", mask)


def _scaled(path: Path, mask: np.ndarray) -> None:
    save_mask(path, mask.repeat(2, 0).repeat(2, 1))


ONE, ALL = hole(1)[0], hole(FRAMES)
MASKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "picture": ("mask.png", lambda p: save_mask(p, ONE)),
    "picture of 0 and 1": ("mask.png", lambda p: Image.fromarray(ONE.astype(np.uint8)).save(p)),
    "JPEG": ("mask.jpg", lambda p: Image.fromarray(ONE.astype(np.uint8) * 255).save(p, quality=98)),
    "1 bit": ("mask.png", lambda p: Image.fromarray(ONE).save(p)),
    "16 bits": ("mask.png", lambda p: _deep(p, ONE)),
    "transparency": ("mask.png", lambda p: _alpha(p, ONE)),
    "DAVIS's palette": ("mask.png", lambda p: _palette(p, ONE, [0, 0, 0, 128, 0, 0])),
    "black and white palette": ("mask.png", lambda p: _palette(p, ONE, [0, 0, 0, 255, 255, 255])),
    "white first palette": ("mask.png", lambda p: _palette(p, ~ONE, [255, 255, 255, 0, 0, 0])),
    "twice the size": ("mask.png", lambda p: _scaled(p, ONE)),
    "folder": ("mask", lambda p: _folder(p, ALL)),
    "folder of one": ("mask", lambda p: _folder(p, ALL[:1])),
    "mp4": ("mask.mp4", lambda p: _video(p, ALL)),
    "mkv": ("mask.mkv", lambda p: _video(p, ALL, "ffv1")),
    "npy of bool": ("mask.npy", lambda p: np.save(p, ALL)),
    "npy of one frame": ("mask.npy", lambda p: np.save(p, ONE)),
    "npy of 255": ("mask.npy", lambda p: np.save(p, ALL.astype(np.uint8) * 255)),
    "npy of float": ("mask.npy", lambda p: np.save(p, ALL.astype(np.float32))),
}
BAD_MASKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty": ("mask.png", lambda p: save_mask(p, ONE & False)),
    "grey": ("mask.png", lambda p: Image.new("L", (WIDTH, HEIGHT), 128).save(p)),
    "another shape": ("mask.png", lambda p: save_mask(p, ONE[:, :40])),
    "too few frames": ("mask", lambda p: _folder(p, ALL[:3])),
    "too many frames": ("mask.mp4", lambda p: _video(p, hole(FRAMES + 2))),
    "pickle": ("mask.npy", lambda p: np.save(p, np.array([{}], object), allow_pickle=True)),
    "four dimensions": ("mask.npy", lambda p: np.save(p, np.ones((1, 1, 2, 2), bool))),
    "grey array": ("mask.npy", lambda p: np.save(p, ONE * 0.5)),
    "npz": ("mask.npy", lambda p: p.write_bytes(b"PK\3\4" + bytes(60))),
    "text": ("mask.png", lambda p: p.write_text("no picture")),
    "empty folder": ("mask", lambda p: p.mkdir()),
    "cut": ("mask.png", lambda p: _cut(p)),
    "missing": ("mask.png", lambda p: None),
}


def _cut(path: Path) -> None:
    save_mask(path, ONE)
    path.write_bytes(path.read_bytes()[:60])


def masks(world: World, folder: Path, rng: random.Random) -> Case:
    """A mask of any kind, at times turned over; or one that is none."""
    is_bad = rng.random() < 0.4
    kind = rng.choice(list(BAD_MASKS if is_bad else MASKS))
    name, write = (BAD_MASKS if is_bad else MASKS)[kind]
    path = folder / name
    write(path)
    words = edit_words(world, folder, mask=path)
    source = numbered(FRAMES)

    def judge(outcome: Outcome) -> str:
        return refused(outcome, name) if is_bad else _edited_inside(outcome, source)

    return Case(words, judge, kind)


def _edited_inside(outcome: Outcome, source: np.ndarray) -> str:
    """Beyond 8 px of the mask every byte is the source's; in its middle hardly one is."""
    if (flaw := passed(outcome)) != RIGHT:
        return flaw
    found = frames_of(outcome.out)
    if found.shape != source.shape:
        return f"the edit is {found.shape}, the clip {source.shape}"
    far = beyond(KEPT_BEYOND + 1)  # a scaled mask may grow by a pixel
    if (found[:, far] != source[:, far]).any():
        return "the background is not the source's"
    inside = np.abs(found[:, *HOLE].astype(int) - source[:, *HOLE]).mean()
    return RIGHT if inside > 3 else "nothing was edited inside the mask"
