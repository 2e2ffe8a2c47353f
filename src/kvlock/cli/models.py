"""`kvlock models`: what can be edited with, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from kvlock.cli.groups import plain

Words = plain(tuple[str, ...], "[NAME | export NAME DIR]")


@dataclass(frozen=True)
class Models:
    """List the models that are known by a short name, say all that is known of one, or export one."""

    words: tyro.conf.Positional[Words] = ()  # pyright: ignore[reportInvalidTypeForm]
    """NAME (from the list, a hub id or a folder): its family's defaults, each of which a flag overrides.
    export NAME DIR: the model in a diffusers folder of its own."""

    def run(self) -> None:
        """Print the table or one model's defaults, or write one model's folder."""
        match self.words:
            case ():
                _print_table()
            case ("export", name, folder):
                from kvlock.backbones.checkpoints import export_folder

                export_folder(name, Path(folder))
                print(f"written: {folder}")
            case (name,) if name != "export":
                for label, value in details(name).items():
                    print(f"{label:24} {value}")
            case words:
                said = " ".join(words)
                raise ValueError(f"models {said}: expected nothing, NAME, or export NAME DIR")


def _print_table() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from kvlock.backbones.known_models import KNOWN_MODELS

    columns = ("name", "DiT", "weights", "licence", "size", "frames")
    table = Table(*columns, Column("source", overflow="fold"), box=box.SIMPLE)
    for m in KNOWN_MODELS:
        height, width = m.spec.size or (0, 0)
        source = "comes with kvlock, the toy" if m.packaged else m.source
        sizes = f"{m.parameters:,.0f} M", f"{m.weights_gb:g} GB"
        table.add_row(
            m.name, *sizes, m.licence, f"{width}x{height}", str(m.spec.max_frames), source
        )
    Console(width=150).print(table)
    print("Any hub id (owner/name) or diffusers folder of these families works as --model, too.")


def details(name: str) -> dict[str, Any]:
    """What `kvlock edit` takes for a model where no flag says otherwise."""
    from kvlock.backbones.checkpoints import family_of, model_source

    family, source = family_of(name), model_source(name)
    height, width = family.size or (None, None)
    shifts = {f"{w}x{h}": shift for (h, w), shift in family.flow_shifts.items()}
    return {
        "source": source,
        "family": family.name,
        "pipeline": family.pipeline,
        "masked control": "yes"
        if family.takes_control
        else "no, the lock alone holds the background",
        "--method": family.default_method,
        "--size": f"{width}x{height}, by area" if width else "the clip's own",
        "frames, at most": family.max_frames or "not known",
        "frames a second": family.fps or "not known",
        "--flow-shift": ", ".join(f"{s:g} at {n}" for n, s in shifts.items()) or "the checkpoint's",
        "--negative-prompt": family.negative_prompt or "empty",
        "options": ", ".join(f"{n}={v}" for n, v in family.options.items()) or "the paper's",
    }


def usable_models() -> str:
    """In one sentence, what stands ready on this machine: checkpoints in the cache, and the toy."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from kvlock.backbones.known_models import KNOWN_MODELS

    try:
        cached = {repo.repo_id for repo in scan_cache_dir().repos}
    except CacheNotFound:
        cached = set()
    here = [f"{m.name} ({m.weights_gb:g} GB)" for m in KNOWN_MODELS if m.source in cached]
    toys = [m.name for m in KNOWN_MODELS if m.packaged]
    listed = (
        ", ".join(here)
        if here
        else "no checkpoint in the hub's cache yet (kvlock models lists some)"
    )
    return f"{listed}; {' and '.join(toys)}, the toy for tests; or a diffusers folder"
