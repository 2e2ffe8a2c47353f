"""Cases of clips and folders of frames: healthy ones of every kind, and damaged ones."""

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
    WIDTH,
    hole,
    mutated,
    numbered,
    numbers,
    write_clip,
)
from benchmarks.faults.outcome import RIGHT, Outcome, frames_of, passed, refused
from benchmarks.faults.world import FRAMES, World, edit_words
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
            is_named = path.name in outcome.complained
            return refused(outcome, path.name if is_named else "the clip has 1 frame; expected")
        if (flaw := passed(outcome)) != RIGHT or f"{path.name}: " in outcome.said:
            return flaw
        found = frames_of(outcome.out)
        flaw = _in_order(found, video)
        return flaw and (RIGHT if numbers(found) == _by_its_own_tables(path, len(video)) else flaw)

    return Case(edit_words(world, folder, clip=path), judge, f"{what}, {how}")


def _by_its_own_tables(path: Path, count: int) -> list[int]:
    """The numbers that FFmpeg reads where the file itself shows no more than that.

    A codec without checksums draws what other bytes say; a changed time scale moves an edit list.
    """
    with av.open(str(path)) as container:
        trimmed = sum(packet.is_discard for packet in container.demux(_film(container)))
    with av.open(str(path)) as container:  # again: damaged files cannot always be rewound
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(_film(container))]
    return numbers(np.stack(shown)) if shown and len(shown) + trimmed == count else []


def _film(container: Any) -> Any:
    return next(s for s in container.streams.video if s.codec_context.width == WIDTH)


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
    far = beyond(KEPT_BEYOND)
    error = ((found[:, far].astype(float) - video[:, far]) ** 2).mean()
    psnr = 10 * np.log10(255**2 / max(error, 1e-9))
    return RIGHT if psnr >= LEAST_PSNR else f"the background is {psnr:.1f} dB from the source"


def beyond(pixels: int) -> np.ndarray:
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
