"""A plain folder of clips."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlock.bench.datasets.layout import PROMPTS, Prompts, item_id
from kvlock.bench.suite import Item

ENDINGS = ("", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".png", ".jpg", ".npy")


def plain_folder(root: Path, prompts: Prompts) -> Iterator[Item]:
    """A folder of folders: CLIP/{video.mp4 | video/, mask.* | mask/, prompt.txt}.

    Beside them, where there are any, source_prompt.txt, negative_prompt.txt and truth.mp4 (or
    truth/). Raises ValueError for a clip that lacks one of the three.
    """
    for clip in sorted(p for p in root.iterdir() if p.is_dir()):
        texts = {name: clip / f"{name}.txt" for name in PROMPTS}
        given = {n: _text(p) for n, p in texts.items() if p.exists()}
        if "prompt" not in given:
            raise ValueError(f"{clip} has no prompt.txt")
        paths = {name: _find(clip, name) for name in ("video", "mask", "truth")}
        record: dict[str, Any] = given | paths
        yield Item(item_id(clip.name), **record)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text; save it as UTF-8") from error


def _find(clip: Path, name: str) -> str:
    """The file or folder called `name`, whatever its ending; empty where there is no truth."""
    found = [path for path in (clip / f"{name}{ending}" for ending in ENDINGS) if path.exists()]
    if len(found) > 1:
        raise ValueError(f"{clip} has both {found[0].name} and {found[1].name}; leave one")
    if not found and name != "truth":
        expected = f"{name}.mp4, a folder {name} of frames, or the like"
        raise ValueError(f"{clip} has no {name}; expected {expected}")
    return str(found[0]) if found else ""
