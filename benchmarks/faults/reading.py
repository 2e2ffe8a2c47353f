"""Cases of clips, frames and masks: healthy ones of every kind, and damaged ones."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from benchmarks.faults.case import Case
from benchmarks.faults.clips import (
    BITS,
    FORMS,
    HEIGHT,
    HOLE,
    WIDTH,
    hole,
    mutated,
    numbered,
    numbers,
    write_clip,
)
from benchmarks.faults.outcome import RIGHT, Outcome, frames_of, passed, refused
from benchmarks.faults.world import FRAMES, World, edit_words, save_mask
from PIL import Image
from scipy.ndimage import distance_transform_edt

KEPT_BEYOND = 8  # px from the mask, where the background is the source's own
LEAST_PSNR = 22  # dB, of what an encoder makes of the gradient


def _clip(folder: Path, rng: random.Random) -> tuple[Path, np.ndarray, str]:
    form = rng.randrange(len(FORMS))
    count = rng.choice((2, FRAMES, 9))
    video = numbered(count, rng.randrange(2**BITS - count))
    path = folder / f"clip.{FORMS[form][1]}"
    return path, video, " ".join([*write_clip(path, video, rng, form), f"{count} frames"])


def healthy_clip(world: World, folder: Path, rng: random.Random) -> Case:
    """A whole file of any container, its streams in any order."""
    path, video, what = _clip(folder, rng)
    return Case(edit_words(world, folder, clip=path), lambda o: _all_frames(o, video), what)


def damaged_clip(world: World, folder: Path, rng: random.Random) -> Case:
    """The same with damaged bytes: refused, or all its frames, or a line that says what is wrong."""
    path, video, what = _clip(folder, rng)
    data, how = mutated(path.read_bytes(), rng)
    path.write_bytes(data)

    def judge(outcome: Outcome) -> str:
        if outcome.code == 2:
            return refused(outcome, path.name)
        if (flaw := passed(outcome)) != RIGHT or f"{path.name}: " in outcome.said:
            return flaw
        found = frames_of(outcome.out)
        flaw = _in_order(found, video)
        if flaw != RIGHT and len(found) == len(video) and numbers(found) == _alone(path):
            return RIGHT  # codecs without checksums draw what other bytes say
        return flaw

    return Case(edit_words(world, folder, clip=path), judge, f"{what}, {how}")


def _alone(path: Path) -> list[int]:
    """The numbers that FFmpeg alone reads."""
    return numbers(frames_of(path))


def _in_order(found: np.ndarray, video: np.ndarray) -> str:
    if len(found) != len(video):
        return f"{len(found)} of {len(video)} frames in silence"
    if numbers(found) != numbers(video):
        return f"the frames are {numbers(found)}, expected {numbers(video)}"
    return RIGHT


def _all_frames(outcome: Outcome, video: np.ndarray) -> str:
    if (flaw := passed(outcome)) != RIGHT:
        return flaw
    found = frames_of(outcome.out)
    if (flaw := _in_order(found, video)) != RIGHT:
        return flaw
    far = _beyond(KEPT_BEYOND)
    error = ((found[:, far].astype(float) - video[:, far]) ** 2).mean()
    psnr = 10 * np.log10(255**2 / max(error, 1e-9))
    return RIGHT if psnr >= LEAST_PSNR else f"the background is {psnr:.1f} dB from the source"


def _beyond(pixels: int) -> np.ndarray:
    """What lies farther than that from the mask, bool [H, W]."""
    return np.asarray(distance_transform_edt(~hole(1)[0])) > pixels


# Folders of frames

FRAME_FORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rgb.png": lambda image: image,
    "rgba.png": lambda image: image.convert("RGBA"),
    "palette.png": lambda image: image.quantize(256),
    "jpg": lambda image: image,
    "jpeg": lambda image: image,
    "webp.png": lambda image: image,
}
FLAWS = ("none", "none", "cut", "empty", "text", "size", "folder", "eps", "huge")


def frames(world: World, folder: Path, rng: random.Random) -> Case:
    """PNG or JPEG frames with names of any length, one of them broken or none."""
    source, form = folder / "frames", rng.choice(list(FRAME_FORMS))
    source.mkdir()
    video = numbered(FRAMES, rng.randrange(40))
    first, prefix = rng.choice((0, 8, 98)), rng.choice(("", "frame_", "f"))
    paths = [source / f"{prefix}{first + i}.{form.split('.')[-1]}" for i in range(FRAMES)]
    for path, frame in zip(paths, video):
        image = FRAME_FORMS[form](Image.fromarray(frame))
        image.save(path, "WEBP" if form == "webp.png" else None, quality=95)
    flaw = rng.choice(FLAWS)
    _break_image(rng.choice(paths), flaw, rng)

    def judge(outcome: Outcome) -> str:
        return _all_frames(outcome, video) if flaw == "none" else refused(outcome, source.name)

    return Case(edit_words(world, folder, clip=source), judge, f"{form}, {flaw}")


def _break_image(path: Path, flaw: str, rng: random.Random) -> None:
    data = path.read_bytes()
    if flaw == "cut":
        path.write_bytes(data[: rng.randrange(1, len(data) * 3 // 4)])
    elif flaw == "size":
        Image.new("RGB", (WIDTH, HEIGHT - 8)).save(path, "PNG")
    elif flaw == "folder":
        path.unlink()
        path.mkdir()
    elif flaw != "none":
        path.write_bytes(_nonsense(flaw))


def _nonsense(flaw: str) -> bytes:
    """What is no picture. The last names a size and has no pixels."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (10**5).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return {
        "empty": b"",
        "text": b"no picture",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\nshowpage\n",
        "huge": png + b"\0\0\0\0",
    }[flaw]


# Masks


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
    far = _beyond(KEPT_BEYOND + 1)  # a scaled mask may grow by a pixel
    if (found[:, far] != source[:, far]).any():
        return "the background is not the source's"
    inside = np.abs(found[:, *HOLE].astype(int) - source[:, *HOLE]).mean()
    return RIGHT if inside > 3 else "nothing was edited inside the mask"
