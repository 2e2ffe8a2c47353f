"""DAVIS."""

from collections.abc import Iterator
from pathlib import Path

from kvlock.bench.datasets.layout import Prompts, item_id, prompts_of, subfolder
from kvlock.bench.suite import Item

RATE = 24


def davis(root: Path, prompts: Prompts) -> Iterator[Item]:
    """JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png (palette; 0 is background).

    The clips that have a prompt. Raises ValueError for a prompt without a clip, or a mask without
    one.
    """
    annotations = subfolder(root, "Annotations/480p")
    absent = sorted(name for name in prompts if not (annotations / name).is_dir())
    if absent:
        raise ValueError(f"--prompts names {absent[0]}, which {annotations} does not have")
    for folder in sorted(p for p in annotations.iterdir() if p.is_dir() and p.name in prompts):
        video = root / "JPEGImages/480p" / folder.name
        if not video.is_dir():
            raise ValueError(f"{folder} has no clip beside it; expected {video}")
        yield Item(
            item_id(folder.name),
            video=str(video),
            mask=str(folder),
            fps=RATE,
            **prompts_of(prompts, folder.name),
        )
