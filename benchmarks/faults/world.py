"""What all cases share: a tiny model, a clip and a mask that are whole, and what their edit gives."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.faults.clips import hole, numbered
from benchmarks.faults.outcome import OUT
from PIL import Image
from tests.support import tiny

FRAMES = 5
# All choices that are made by memory are made already, so that nothing is counted.
FAST = "--method plain --steps 1 --lossless --no-memory-check --branches sequential"
FAST += " --source-store device --offload none --device cpu"


@dataclass
class World:
    """What no case changes. run: the run.json of the edit of clip and mask; baseline: that edit's
    bytes; seconds: what it took; bench: the folder of a benchmark's run.
    """

    model: Path
    clip: Path
    mask: Path
    run: Path
    bench: Path
    baseline: bytes = b""
    seconds: float = 0.0


def make_world(root: Path) -> World:
    """Write them under `root`."""
    world = World(
        model=root / "model",
        clip=root / "frames",
        mask=root / "mask.png",
        run=root / OUT / "run.json",
        bench=root / "bench" / OUT,
    )
    tiny.vace_pipe().save_pretrained(world.model)
    world.clip.mkdir()
    for number, frame in enumerate(numbered(FRAMES)):
        Image.fromarray(frame).save(world.clip / f"{number}.png")
    save_mask(world.mask, hole(1)[0])
    return world


def save_mask(path: Path, mask: np.ndarray) -> None:
    """bool [H, W] as a black and white picture."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def edit_words(world: World, folder: Path, out: str = f"{OUT}.mp4", **changes: Path) -> list[str]:
    """The command that edits; `clip`, `mask` or `model` replace the whole ones."""
    paths = {"clip": world.clip, "mask": world.mask, "model": world.model} | changes
    words = [
        "edit",
        str(paths["clip"]),
        "--mask",
        str(paths["mask"]),
        "--model",
        str(paths["model"]),
    ]
    return [*words, "--prompt", "a red cat", *FAST.split(), "--out", str(folder / out)]


def linked_copy(source: Path, target: Path, but: str) -> Path:
    """A folder like another, of links but for the file `but`, which is copied. Gives that file."""
    for file in (f for f in source.rglob("*") if f.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if str(file.relative_to(source)) == but:
            shutil.copy(file, copy)
        else:
            copy.symlink_to(file)
    return target / but
