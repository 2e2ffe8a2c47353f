"""FiVE-Bench."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlock.bench.datasets.layout import Prompts, item_id, read_json, subfolder
from kvlock.bench.suite import Item

EDIT_TYPES = {
    1: "replace-rigid",
    2: "replace-non-rigid",
    3: "colour",
    4: "material",
    5: "add",
    6: "remove",
}
NEEDED = ("video_name", "source_prompt", "target_prompt")


def five_bench(root: Path, prompts: Prompts) -> Iterator[Item]:
    """data/edit_prompt/editN_FiVE.json, data/images/VIDEO/*.jpg, data/bmasks/VIDEO/*.jpg.

    Raises ValueError for an entry of another form, or without its clip.
    """
    data = subfolder(root, "data")
    for number, edit_type in EDIT_TYPES.items():
        path = data / "edit_prompt" / f"edit{number}_FiVE.json"
        for index, entry in enumerate(read_json(path) if path.exists() else []):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(n), str) for n in NEEDED
            ):
                raise ValueError(f"{path}: entry {index} lacks one of {', '.join(NEEDED)}")
            yield _item(data, path, entry, f"{number}-{index:03d}", edit_type)


def _item(data: Path, path: Path, entry: dict[str, Any], number: str, edit_type: str) -> Item:
    name = entry["video_name"]
    images, masks = data / "images" / name, data / "bmasks" / name
    for folder in (images, masks):
        if not folder.is_dir():
            raise ValueError(f"{path}: {name} has no folder {folder}")
    prompt, source_prompt = (
        re.sub(r"[\[\]]", "", entry[name]) for name in ("target_prompt", "source_prompt")
    )
    return Item(
        item_id(f"{name}-{number}"),
        prompt,
        source_prompt,
        edit_type=edit_type,
        video=str(images),
        mask=str(masks),
    )
