"""What is to be edited: one JSONL manifest, a line a clip."""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kvlock.contract.records import typed
from kvlock.media.files import write_text
from kvlock.shapes.scene import random_edit

ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
HELD_OUT = range(0, 64)  # the scenes of every published table; nothing is tuned on them
VALIDATION = range(10000, 10040)  # the scenes on which settings are chosen
CALIBRATION = range(30000, 30040)  # the scenes that say what is usual for a model


@dataclass(frozen=True)
class Item:
    """One edit of a suite. Paths are relative to the manifest's folder.

    A clip comes from files (`video`, `mask`, and `truth` where the true edited clip is known) or,
    in the built-in world, from the `scene` of that seed. `fps` is the rate of a folder of frames.
    Where `negative_prompt` is None, the model family's own is taken.
    """

    id: str
    prompt: str
    source_prompt: str = ""
    negative_prompt: str | None = None
    edit_type: str = ""
    video: str = ""
    mask: str = ""
    invert_mask: bool = False
    truth: str = ""
    fps: float = 16
    scene: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not ID.fullmatch(self.id):
            raise ValueError(
                f"id {self.id!r} is not 1 to 80 of A-Z a-z 0-9 . _ -, a letter, digit or _ first"
            )
        for field in fields(self):
            typed(getattr(self, field.name), field.type, f"{self.id}: {field.name}")
        if not 0.001 <= self.fps <= 1000:
            raise ValueError(f"{self.id}: fps is {self.fps}; expected above 0, at most 1000")
        if self.scene is None and not (self.video and self.mask):
            raise ValueError(f"{self.id} has neither a scene nor a video and a mask")
        if self.scene is not None and not 0 <= self.scene < 2**31:
            raise ValueError(f"{self.id}: scene is {self.scene!r}; expected a seed from 0")
        if not self.prompt.strip():
            raise ValueError(f"{self.id} has no prompt")


@dataclass(frozen=True)
class Suite:
    """Items, in order, and the folder that their paths are relative to."""

    name: str
    folder: Path
    items: tuple[Item, ...]


def shapes_suite(name: str, seeds: range) -> Suite:
    """Scenes of the built-in world, made at run time."""
    return Suite(name, Path(), tuple(_scene_item(seed) for seed in seeds))


def read_suite(name: str) -> Suite:
    """`shapes` (the held-out scenes), `shapes-validation`, `shapes-calibration`, or a manifest's
    path.

    Raises ValueError, with the line's number, for what is no manifest.
    """
    built_in = {
        "shapes": HELD_OUT,
        "shapes-validation": VALIDATION,
        "shapes-calibration": CALIBRATION,
    }
    if name in built_in:
        return shapes_suite(name, built_in[name])
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"suite {name}: no such manifest; expected {', '.join(built_in)}, or a .jsonl file"
        )
    items = [
        _item(path, number, line) for number, line in enumerate(_lines(path), 1) if line.strip()
    ]
    if not items:
        raise ValueError(f"{path}: the manifest is empty")
    twice = sorted({i.id for i in items if [j.id for j in items].count(i.id) > 1})
    if twice:
        raise ValueError(f"{path}: the id {twice[0]!r} stands there twice; ids must differ")
    return Suite(path.stem, path.parent, tuple(items))


def write_suite(items: list[Item], path: Path) -> None:
    """One line an item; fields that hold their default are left out."""
    usual = {f.name: f.default for f in fields(Item)}
    records = [{k: v for k, v in asdict(item).items() if v != usual[k]} for item in items]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    # Half of a surrogate pair is no UTF-8; as an escape it is JSON, and this writes that escape.
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(path, text + "\n")


def item_of(record: Any) -> Item:
    """One item from JSON. Raises ValueError, with the field, for what is none."""
    known = [f.name for f in fields(Item)]
    unknown = sorted(set(typed(record, dict)) - set(known))
    if unknown:
        raise ValueError(f"field {unknown[0]!r} is unknown; expected {', '.join(known)}")
    missing = [name for name in ("id", "prompt") if name not in record]
    if missing:
        raise ValueError(f"field {missing[0]!r} is missing; expected text")
    return Item(**record)


def _scene_item(seed: int) -> Item:
    edit = random_edit(seed)
    return Item(
        f"scene-{seed:05d}", edit.prompt, edit.source_prompt, edit_type=edit.kind, scene=seed
    )


def _lines(path: Path) -> list[str]:
    """Ended by a line feed alone: JSON leaves Unicode's other line ends in a prompt as they are."""
    try:
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text; expected JSON, an item a line") from error


def _item(path: Path, number: int, line: str) -> Item:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number} is no JSON; expected an item a line") from error
    try:
        return item_of(record)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error
