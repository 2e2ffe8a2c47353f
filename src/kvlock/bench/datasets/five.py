"""FiVE-Bench."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from kvlock.bench.datasets.layout import Prompts, item_id, subfolder
from kvlock.bench.suite import Item
from kvlock.contract.records import read_json

EDIT_TYPES = {
    1: "replace-rigid",
    2: "replace-non-rigid",
    3: "colour",
    4: "material",
    5: "add",
    6: "remove",
}


class _Entry(TypedDict):
    video_name: str
    source_prompt: str
    target_prompt: str


def five_bench(root: Path, prompts: Prompts) -> Iterator[Item]:
    """data/edit_prompt/editN_FiVE.json, data/images/VIDEO/*.jpg, data/bmasks/VIDEO/*.jpg.

    Raises ValueError for an entry of another form, or without its clip.
    """
    data = subfolder(root, "data")
    for number, edit_type in EDIT_TYPES.items():
        path = data / "edit_prompt" / f"edit{number}_FiVE.json"
        entries = read_json(path, list[_Entry], "download it again") if path.exists() else []
        for index, entry in enumerate(entries):
            yield _item(data, path, entry, f"{number}-{index:03d}", edit_type)


def _item(data: Path, path: Path, entry: _Entry, number: str, edit_type: str) -> Item:
    name = entry["video_name"]
    images, masks = data / "images" / name, data / "bmasks" / name
    for folder in (images, masks):
        if not folder.is_dir():
            raise ValueError(f"{path}: {name} has no folder {folder}")
    prompt, source_prompt = (
        re.sub(r"[\[\]]", "", text) for text in (entry["target_prompt"], entry["source_prompt"])
    )
    return Item(
        item_id(f"{name}-{number}"),
        prompt,
        source_prompt,
        edit_type=edit_type,
        video=str(images),
        mask=str(masks),
    )
