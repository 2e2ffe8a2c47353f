"""Public benchmarks, as their archives lie on disk, to a kvlock manifest. Nothing is copied: paths point there."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvlock.bench.suite import Item

FIVE_TYPES = {
    1: "replace-rigid",
    2: "replace-non-rigid",
    3: "colour",
    4: "material",
    5: "add",
    6: "remove",
}
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
Prompts = dict[str, dict[str, str]]


def convert(kind: str, root: Path, manifest: Path, prompts: Path | None) -> list[Item]:
    """The items of a benchmark of that `kind` under `root`, with paths relative to where `manifest` will stand.

    `prompts` is a JSON file for the benchmarks that come without prompts: {name: "prompt"}, or {name: {"prompt": ...,
    "source_prompt": ..., "negative_prompt": ...}}.
    Raises ValueError where the layout is another, with what was expected.
    """
    if kind not in CONVERTERS:
        raise ValueError(f"benchmark {kind!r} is unknown; expected one of {', '.join(CONVERTERS)}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    items = list(CONVERTERS[kind](root, _read_prompts(prompts) if prompts else {}))
    if not items:
        raise ValueError(f"{root}: no clip of {kind} with a mask and a prompt; see kvlock bench convert --help")
    ids = [item.id for item in items]
    items = [replace(i, id=f"{i.id[:72]}-{n:04d}") if ids.count(i.id) > 1 else i for n, i in enumerate(items)]
    return [_placed(item, manifest.absolute().parent) for item in items]


def _vace(root: Path, prompts: Prompts) -> Iterator[Item]:
    """VACE-Benchmark: assets/examples/TASK/{ori_video,src_video,src_mask}.mp4; tasks without a mask are left out.

    `src_video` may be grey inside the mask already, so the source is `ori_video` where there is one.
    """
    for mask in sorted(_inside(root, "assets/examples").glob("*/src_mask.mp4")):
        name = mask.parent.name
        original, prepared = mask.parent / "ori_video.mp4", mask.parent / "src_video.mp4"
        video = original if original.exists() else prepared
        if not video.exists():
            raise ValueError(f"{mask.parent} has a src_mask.mp4, but neither ori_video.mp4 nor src_video.mp4")
        yield Item(_id(name), video=str(video), mask=str(mask), edit_type=name, **_prompt(prompts, name))


def _five(root: Path, prompts: Prompts) -> Iterator[Item]:
    """FiVE-Bench: data/edit_prompt/editN_FiVE.json, data/images/VIDEO/*.jpg, data/bmasks/VIDEO/*.jpg."""
    data = _inside(root, "data")
    for number, edit_type in FIVE_TYPES.items():
        path = data / "edit_prompt" / f"edit{number}_FiVE.json"
        if not path.exists():
            continue
        for index, entry in enumerate(_read_json(path)):
            needed = ("video_name", "source_prompt", "target_prompt")
            if not isinstance(entry, dict) or not all(isinstance(entry.get(n), str) for n in needed):
                raise ValueError(f"{path}: entry {index} lacks one of {', '.join(needed)}")
            name = entry["video_name"]
            images, masks = data / "images" / name, data / "bmasks" / name
            for folder in (images, masks):
                if not folder.is_dir():
                    raise ValueError(f"{path}: {name} has no folder {folder}")
            yield Item(
                _id(f"{name}-{number}-{index:03d}"),
                re.sub(r"[\[\]]", "", entry["target_prompt"]),
                re.sub(r"[\[\]]", "", entry["source_prompt"]),
                edit_type=edit_type,
                video=str(images),
                mask=str(masks),
            )


def _davis(root: Path, prompts: Prompts) -> Iterator[Item]:
    """DAVIS: JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png (palette; 0 is background)."""
    annotations = _inside(root, "Annotations/480p")
    absent = sorted(name for name in prompts if not (annotations / name).is_dir())
    if absent:
        raise ValueError(f"--prompts names {absent[0]}, which {annotations} does not have")
    for folder in sorted(p for p in annotations.iterdir() if p.is_dir() and p.name in prompts):
        video = root / "JPEGImages/480p" / folder.name
        if not video.is_dir():
            raise ValueError(f"{folder} has no clip beside it; expected {video}")
        yield Item(_id(folder.name), video=str(video), mask=str(folder), fps=24, **_prompt(prompts, folder.name))


def _folder(root: Path, prompts: Prompts) -> Iterator[Item]:
    """A folder of folders: CLIP/{video.mp4 | video/, mask.* | mask/, prompt.txt}.

    Beside them, where there are any, source_prompt.txt, negative_prompt.txt and truth.mp4 (or truth/).
    """
    for clip in sorted(p for p in root.iterdir() if p.is_dir()):
        texts = {name: clip / f"{name}.txt" for name in ("prompt", "source_prompt", "negative_prompt")}
        given = {name: path.read_text(encoding="utf-8").strip() for name, path in texts.items() if path.exists()}
        if "prompt" not in given:
            raise ValueError(f"{clip} has no prompt.txt")
        paths = {name: _one(clip, name, required=name != "truth") for name in ("video", "mask", "truth")}
        record: dict[str, Any] = given | paths
        yield Item(_id(clip.name), **record)


CONVERTERS: dict[str, Callable[[Path, Prompts], Iterator[Item]]] = {
    "vace": _vace,
    "five": _five,
    "davis": _davis,
    "folder": _folder,
}


def _inside(root: Path, folder: str) -> Path:
    if not (root / folder).is_dir():
        raise ValueError(f"{root} has no folder {folder}; give the folder that the benchmark was unpacked to")
    return root / folder


def _one(clip: Path, name: str, required: bool) -> str:
    """The file or folder called `name`, whatever its ending."""
    endings = ("", *VIDEO_ENDINGS, ".png", ".jpg", ".npy")
    found = [path for path in (clip / f"{name}{ending}" for ending in endings) if path.exists()]
    if len(found) > 1:
        raise ValueError(f"{clip} has both {found[0].name} and {found[1].name}; leave one")
    if not found and required:
        raise ValueError(f"{clip} has no {name}; expected {name}.mp4, a folder {name} of frames, or the like")
    return str(found[0]) if found else ""


def _prompt(prompts: Prompts, name: str) -> dict[str, Any]:
    if name not in prompts:
        raise ValueError(f"no prompt for {name}; this benchmark has none on disk, give them with --prompts FILE.json")
    return prompts[name]


def _read_prompts(path: Path) -> Prompts:
    record = _read_json(path)
    fields = {"prompt", "source_prompt", "negative_prompt"}
    if not isinstance(record, dict):
        raise ValueError(f'{path}: expected {{"clip": "prompt", ...}}')
    prompts = {name: {"prompt": value} if isinstance(value, str) else value for name, value in record.items()}
    for name, value in prompts.items():
        if not isinstance(value, dict) or "prompt" not in value or set(value) - fields:
            raise ValueError(f"{path}: {name} is {value!r}; expected a prompt, or an object with {', '.join(fields)}")
    return prompts


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from error


def _placed(item: Item, folder: Path) -> Item:
    given = {name: getattr(item, name) for name in ("video", "mask", "truth") if getattr(item, name)}
    return replace(item, **{name: os.path.relpath(Path(path).absolute(), folder) for name, path in given.items()})


def _id(name: str) -> str:
    """`name` with what an id may not hold replaced by a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
