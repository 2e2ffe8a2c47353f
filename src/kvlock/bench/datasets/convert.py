"""`kvlock bench convert`: a benchmark's folder to the items of a suite. Nothing is copied: paths
point there.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kvlock.bench.datasets.davis import davis
from kvlock.bench.datasets.five import five_bench
from kvlock.bench.datasets.folder import plain_folder
from kvlock.bench.datasets.layout import Prompts, read_prompts
from kvlock.bench.datasets.vace import vace_benchmark
from kvlock.bench.suite import Item

CONVERTERS: dict[str, Callable[[Path, Prompts], Iterator[Item]]] = {
    "vace": vace_benchmark,
    "five": five_bench,
    "davis": davis,
    "folder": plain_folder,
}


def convert(kind: str, root: Path, manifest: Path, prompts: Path | None) -> list[Item]:
    """The items of a benchmark of that `kind` under `root`; their paths are relative to the folder
    of `manifest`.

    `prompts` is a JSON file for the benchmarks that come without prompts: {name: "prompt"}, or
    {name: {"prompt": ..., "source_prompt": ..., "negative_prompt": ...}}. Raises ValueError where
    the layout is another, with what was expected.
    """
    if kind not in CONVERTERS:
        raise ValueError(f"benchmark {kind!r} is unknown; expected one of {', '.join(CONVERTERS)}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    items = list(CONVERTERS[kind](root, read_prompts(prompts) if prompts else {}))
    if not items:
        expected = "see kvlock bench convert --help"
        raise ValueError(f"{root}: no clip of {kind} with a mask and a prompt; {expected}")
    folder = manifest.absolute().parent
    return [_relative(item, folder) for item in _with_own_ids(items)]


def _with_own_ids(items: list[Item]) -> list[Item]:
    """Ids that two items share get the item's number at their end."""
    ids = [item.id for item in items]
    return [
        replace(item, id=f"{item.id[:72]}-{number:04d}") if ids.count(item.id) > 1 else item
        for number, item in enumerate(items)
    ]


def _relative(item: Item, folder: Path) -> Item:
    paths = {name: getattr(item, name) for name in ("video", "mask", "truth")}
    given = {name: Path(path).absolute() for name, path in paths.items() if path}
    return replace(item, **{name: os.path.relpath(path, folder) for name, path in given.items()})
