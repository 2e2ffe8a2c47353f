"""From a model's name to its files: a folder, or a hub id whose files are cached or fetched. No torch."""

import difflib
import hashlib
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

from kvlock.backbones.families import pipeline_names, recognised
from kvlock.backbones.family import Family
from kvlock.backbones.known_models import KNOWN_MODELS, SHAPES_FOLDER, known_model
from kvlock.backbones.model_files import REMEDY, check_config, check_safetensors, read_object
from kvlock.contract.records import read_json

INDEX = "model_index.json"
SHARED = "shared"  # the folder of what models beside it have in common
SMALL = 100_000_000  # bytes of a file that are read to tell it from another
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class _Index(TypedDict):
    weight_map: dict[str, str]


def family_of(model: str) -> Family:
    """The family of a known model, or of a hub id or folder by its configs; nothing else is read.

    Raises ValueError for a model that kvlock cannot edit with.
    """
    known = known_model(model)
    if known:
        return known.spec
    index = read_config(model, INDEX)
    name = index.get("_class_name")
    if not _is_name(name):
        raise ValueError(f"model {model!r} is a {name}; kvlock can edit with {pipeline_names()}")
    row = recognised(name, read_config(model, "transformer/config.json"), index)
    assert row
    return row


def _is_component(value: Any) -> bool:
    """Whether an entry of the index names a part: [library, class]."""
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(isinstance(name, str) for name in value)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name in pipeline_names().split(", ")


def model_source(model: str) -> str:
    """The folder or the hub id that a name stands for. Raises ValueError for none of them."""
    known = known_model(model)
    if known and known.packaged:
        folder = shipped_folder() / known.source
        if not folder.is_dir():
            raise ValueError(
                f"model {model!r} comes with kvlock, but {folder} is not there; install kvlock again"
            )
        return str(folder)
    if known:
        return known.source
    if model and (Path(model).is_dir() or _is_hub_id(model)):
        return model
    names = [m.name for m in KNOWN_MODELS]
    near = difflib.get_close_matches(model.lower(), names, 1)
    hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(names)}"
    raise ValueError(
        f"model {model!r} is neither a known name, nor a folder, nor a hub id (owner/name); {hint}"
    )


def shipped_folder() -> Path:
    """The folder of the models that come with kvlock."""
    return Path(str(files("kvlock"))) / SHAPES_FOLDER


def _is_hub_id(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def config_file(model: str, name: str) -> Path:
    """A file of a model, in its folder or of the hub. Raises ValueError where it is not to be had."""
    source = model_source(model)
    if Path(source).is_dir():
        part, _, file = name.rpartition("/")
        return part_folder(Path(source), part) / file
    from kvlock.backbones.hub import hub_file  # loads the hub's library

    return hub_file(source, name)


def read_config(model: str, name: str) -> dict[str, Any]:
    """A JSON file of a model. Raises ValueError where it holds no object."""
    return read_object(config_file(model, name))


def check_configs(model: str, family: Family) -> None:
    """Raise ValueError where a field of the transformer's or the VAE's config is of another type."""
    import diffusers

    for part in ("transformer", "vae"):
        cls = getattr(diffusers, getattr(family, part))
        check_config(config_file(model, f"{part}/config.json"), cls)


def part_folder(folder: Path, part: str) -> Path:
    """Where a component of a model's folder is: in it, or else in the folder `shared` beside it.

    So the built-in models have one VAE, text encoder, tokenizer and scheduler.
    """
    beside = folder.parent / SHARED / part
    return beside if beside.is_dir() and not (folder / part).is_dir() else folder / part


def components(folder: Path) -> dict[str, list[str]]:
    """The parts that a model's index names, and of each the library and the class."""
    index = read_config(str(folder), INDEX)
    return {name: value for name, value in index.items() if _is_component(value)}


def checkpoint_folder(model: str) -> Path:
    """The folder of a model (`part_folder` has its parts), fetched if it is not in the cache.

    Raises ValueError where a component is missing, cut off or pickled.
    """
    source = model_source(model)
    if Path(source).is_dir():
        _check_whole(model, Path(source))
        return Path(source)
    from kvlock.backbones.hub import hub_folder  # loads the hub's library

    return hub_folder(source, lambda folder: _check_whole(model, folder))


def _check_whole(model: str, folder: Path) -> None:
    """Raise ValueError for a component that is not there, not whole, or not safe."""
    weighted = family_of(str(folder)).parts
    for component in sorted({*components(folder), *weighted}):
        home = part_folder(folder, component)
        if not home.is_dir():
            raise ValueError(
                f"model {model!r} lacks its component {component!r}; download the whole folder"
            )
        configs = [read_object(path) for path in sorted(home.glob("*config.json"))]
        if not configs:
            raise ValueError(f"model {model!r} has no config in {component}/; download it again")
    for component in weighted:
        home = part_folder(folder, component)
        names = [f.name for f in home.glob("*")]
        if not any(n.endswith(".safetensors") for n in names):
            pickle = next((n for n in names if n.endswith(PICKLES)), None)
            found = f"pickled weights ({pickle}), which can run code" if pickle else "no weights"
            raise ValueError(f"model {model!r} has {found} in {component}/; expected .safetensors")
        missing = sorted(set(weight_map(home).values()) - set(names))
        if missing:
            raise ValueError(f"model {model!r} lacks {component}/{missing[0]}; download it again")
        for name in sorted(n for n in names if n.endswith(".safetensors")):
            check_safetensors(home / name)


def weight_map(component: Path) -> dict[str, str]:
    """Which file each tensor is in, by the index of sharded weights; empty for a single file."""
    found = sorted(component.glob("*.safetensors.index.json"), key=lambda path: len(path.name))
    if not found:
        return {}
    return read_json(found[0], _Index, REMEDY)["weight_map"]


def weights_digest(model: str) -> str:
    """What tells a model's weights from those that stood under the same name before; "" for a hub id.

    Of the bytes where they are few (the built-in models), of names and sizes where they are many.
    """
    folder = Path(model_source(model))
    if not folder.is_dir():
        return ""
    roots = {"": folder} | {part: part_folder(folder, part) for part in family_of(model).parts}
    files = {
        Path(part) / file.relative_to(root): file
        for part, root in roots.items()
        for file in root.rglob("*.safetensors")
    }
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        size = file.stat().st_size
        digest.update(f"{name} {size}".encode())
        if size < SMALL:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def export_folder(model: str, out: Path) -> None:
    """Copy a model to the new folder `out`, shared parts and all, so that diffusers loads it alone.

    Raises ValueError for a model that is in no folder, or an `out` that is there.
    """
    source = Path(model_source(model))
    if not source.is_dir():
        raise ValueError(f"model {model!r} is no folder on this machine; type hf download {source}")
    if out.exists():
        raise ValueError(f"{out} is there already; expected a new folder")
    _check_whole(model, source)
    shutil.copytree(source, out)
    for part in components(source):
        shutil.copytree(part_folder(source, part), out / part, dirs_exist_ok=True)


def cache_folder() -> Path:
    """kvlock's own, in `XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvlock"
