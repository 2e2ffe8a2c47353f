"""`kvlock edit`, `kvlock demo` and `kvlock models`."""

import dataclasses
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kvlock.backbones.calibration import model_defaults
from kvlock.backbones.known_models import KNOWN_MODELS, KnownModel, family_of, known_model
from kvlock.core.config import KVLockConfig
from kvlock.methods.table import CALIBRATED, DEFAULT_METHODS, MethodConfig, check_model, config_class, method_config
from kvlock.versions import versions

FLAG_NAMES = {"num_inference_steps": "steps"}
SEEDS_END = 2**63
OTHER_VIDEOS = (".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v")


def _overrides() -> type:
    """KVLockConfig's fields as optional flags: what is not given is the model's or the method's own."""
    columns = []
    for f in dataclasses.fields(KVLockConfig):
        flag = tyro.conf.arg(name=FLAG_NAMES.get(f.name, f.name.replace("_", "-")), help=f.metadata["help"])
        columns.append((f.name, Annotated[f.type | None, flag], field(default=None)))  # type: ignore[operator]
    return dataclasses.make_dataclass("ConfigOverrides", columns, frozen=True)


ConfigOverrides = _overrides()


@dataclass(frozen=True)
class Edit:
    """Edit one thing in a clip and keep the rest."""

    clip: Annotated[str, tyro.conf.Positional] = ""
    """The source: a video file, or a folder of PNG/JPEG frames."""
    mask: str = ""
    """Where the edit may happen (white): a video, a folder, one image for all frames, or an .npy file."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What the edited clip shows; several of them are edited together and share what is computed of the source."""
    source_prompt: str = ""
    """What the source shows; empty is fine."""
    negative_prompt: str = ""
    """What to steer away from."""
    out: str = ""
    """A folder for everything, or an .mp4 file for the edited clip alone."""
    model: str = "shapes"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    method: str = "auto"
    """auto (fast on VACE models, constant on text-to-video ones), kv-lock (the paper's), a row of its ablation, or a
    baseline: plain, rigid, proedit, flowedit, sdedit, ..."""
    seed: int = 0
    """The noise belongs to the seed alone."""
    seeds: str = ""
    """Several at once, such as 0..3: each draws the noise inside the mask, --background-seed the rest."""
    background_seed: int | None = None
    """Draws the noise outside the mask; the seed does where it is not given, the first of several."""
    size: str = "auto"
    """WIDTHxHEIGHT whose area the clip is scaled to for the model; 'auto' is the model's own, 'keep' the clip's."""
    fps: float = 16
    """Frame rate of a folder of frames; a video file keeps its own."""
    invert_mask: bool = False
    """Edit where the mask is black."""
    dilate: int = 0
    """Grow the mask by that many pixels."""
    composite: bool = False
    """Paste the source's pixels back outside the mask; exact from 8 pixels on, in the bytes with --lossless."""
    lossless: bool = False
    """Write RGB H.264 that decodes to the very bytes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16; the VAE is float32 always."""
    offload: bool = False
    """Keep each part of the model on the CPU until it runs."""
    tile_vae: bool = False
    """Encode and decode tile by tile, in less memory; moves pixels a little."""
    compile: bool = False
    """Compile the transformer's blocks (torch.compile): a slow first step; gains nothing on a CPU (docs/speed.md)."""
    memory_check: bool = True
    """Refuse an edit that the device has no room for, by an estimate; it takes all weights to be in --dtype."""
    flow_shift: float | None = None
    """Timestep shift; the checkpoint's own where it is not given."""
    overwrite: bool = False
    """Replace files that exist."""
    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    """A run.json: make that edit again, to the byte on the same machine; only --out and --overwrite go with it."""
    config: Annotated[ConfigOverrides, tyro.conf.arg(name="")] = field(default_factory=ConfigOverrides)  # type: ignore

    def run(self) -> None:
        """Make the edit and write its files."""
        if self.method == "auto" and not self.from_:
            return dataclasses.replace(self, method=DEFAULT_METHODS[family_of(self.model)]).run()
        arguments, config = _replayed(self) if self.from_ else (self, self.resolved_config())
        _check_arguments(arguments)
        from kvlock.edit_command import run_edit

        own = asdict(self.config)  # type: ignore[call-overload]
        given = set(own) if self.from_ else {name for name, value in own.items() if value is not None}
        run_edit(arguments, config, given)

    def resolved_config(self) -> MethodConfig:
        """The model's defaults, then the method's fields, then what the user gave."""
        known = known_model(self.model)
        if known:
            check_model(self.method, known.family == "wan-vace")
        overrides = {k: v for k, v in asdict(self.config).items() if v is not None}  # type: ignore[call-overload]
        return method_config(self.method, model_defaults(self.model, self.method in CALIBRATED), overrides)

    def variants(self) -> list[tuple[str, int]]:
        """Every prompt with every seed."""
        seeds = seed_range(self.seeds) if self.seeds else [self.seed]
        return [(prompt, seed) for prompt in self.prompt for seed in seeds]

    def area_of(self, known: KnownModel | None) -> tuple[int, int] | None:
        """(height, width) whose area the clip is scaled to; None keeps the clip's own."""
        return size_of(self.size, known.size if known else None)


@dataclass(frozen=True)
class Demo:
    """Render a clip of the built-in world, edit it with the paper's schedules, and say where to look."""

    out: str = "kvlock-demo"
    """Folder for the clip, its mask and the edit."""
    seed: int = 72
    """Which scene of the built-in world."""

    def run(self) -> None:
        """Scene, mask, edit; the files of an earlier demo are replaced."""
        if Path(self.out).suffix:
            raise ValueError(f"--out is {self.out}; expected a folder")
        from kvlock.shapes.scenes import write_scene

        scene = write_scene(self.seed, Path(self.out))
        edit = Edit(
            clip=f"{self.out}/source.mp4",
            mask=f"{self.out}/mask.mp4",
            source_prompt=scene.source_prompt,
            prompt=(scene.prompt,),
            out=self.out,
            method="kv-lock",
            overwrite=True,
        )
        print(f"source: {scene.source_prompt}\nedit:   {scene.prompt}")
        edit.run()
        print(f"look at {self.out}/comparison.mp4 (source | mask | edited), sheet.png and trace.png")


@dataclass(frozen=True)
class Models:
    """List the models that are known by a short name."""

    def run(self) -> None:
        """Print the table."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        columns = ("name", "family", "DiT", "weights", "licence", "size", "frames", "source")
        table = Table(*columns, box=box.SIMPLE)
        for m in KNOWN_MODELS:
            size = f"{m.size[1]}x{m.size[0]}"
            source = "comes with kvlock" if m.packaged else m.source
            row = (f"{m.parameters:,.0f} M", f"{m.weights_gb:g} GB", m.licence, size, str(m.max_frames), source)
            table.add_row(m.name, m.family, *row)
        Console(width=120).print(table)
        print("Anything else given as --model is taken as a hub id (owner/name) or a diffusers folder.")


def _check_arguments(arguments: Edit) -> None:
    """What can be said before anything is loaded."""
    for name in ("clip", "mask", "prompt", "out"):
        value = getattr(arguments, name)
        if not value or not all(v.strip() for v in ([value] if isinstance(value, str) else value)):
            flag = "CLIP" if name == "clip" else f"--{name}"
            raise ValueError(f"{flag} is missing; see kvlock edit --help")
    if not 0.001 <= arguments.fps <= 1000:
        raise ValueError(f"--fps is {arguments.fps}; expected above 0, at most 1000")
    for flag, seed in (("seed", arguments.seed), ("background-seed", arguments.background_seed or 0)):
        if not 0 <= seed < SEEDS_END:
            raise ValueError(f"--{flag} is {seed}; expected 0 to 2**63 - 1")
    if arguments.seeds and arguments.seed:
        raise ValueError("--seed and --seeds exclude each other; give one of them")
    if len(arguments.variants()) > 1 and Path(arguments.out).suffix.lower() == ".mp4":
        raise ValueError(f"--out {arguments.out} is one file; several edits need a folder")
    size_of(arguments.size, None)
    _check_out(Path(arguments.out), arguments.overwrite)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() in OTHER_VIDEOS:
        raise ValueError(f"--out {out}: expected a folder, or a file that ends in .mp4")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    if not os.access(out if out.is_dir() else out.absolute().parent, os.W_OK):
        raise ValueError(f"--out {out}: that folder cannot be written to")
    if out.exists() and out.is_dir() == (out.suffix.lower() == ".mp4"):
        raise ValueError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}; give another name")
    if not overwrite and out.is_file():
        raise ValueError(f"--out {out} exists; give another name or --overwrite")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out {out} is not empty; give another folder or --overwrite")


def seed_range(text: str) -> range:
    """`3` or `0..2`, both ends included. Raises ValueError for anything else."""
    first, dots, last = text.partition("..")
    if not (first.isdecimal() and (last.isdecimal() if dots else True)) or int(last or first) < int(first):
        raise ValueError(f"--seeds is {text!r}; expected a seed such as 0, or a range such as 0..2")
    if int(last or first) >= SEEDS_END:
        raise ValueError(f"--seeds is {text!r}; expected seeds from 0 to 2**63 - 1")
    return range(int(first), int(last or first) + 1)


def size_of(text: str, own: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of --size; `own` is the model's. Raises ValueError for anything else."""
    if text in ("auto", "keep"):
        return own if text == "auto" else None
    width, x, height = text.partition("x")
    if not (x and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"--size is {text!r}; expected WIDTHxHEIGHT such as 832x480, auto, or keep")
    return int(height), int(width)


def _replayed(given: Edit) -> tuple[Edit, MethodConfig]:
    """The arguments and the resolved config of a run.json, with this call's --out and --overwrite."""
    if dataclasses.replace(given, from_="", out="", overwrite=False) != Edit():
        raise ValueError("--from takes everything from the run.json; only --out and --overwrite may stand beside it")
    try:
        saved = json.loads(Path(given.from_).read_text())
        config = config_class(saved["arguments"]["method"])(**saved["config"])
        told = saved["arguments"]["prompt"]
        prompts = {"prompt": (told,) if isinstance(told, str) else tuple(told)}  # of one alone before version 0.2
        arguments = Edit(**{**saved["arguments"], **prompts, "config": ConfigOverrides()})
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"--from {given.from_} is not a run.json of kvlock ({type(error).__name__}: {error})"
        ) from error
    now = versions()
    changed = [f"{name} {old}, now {now.get(name)}" for name, old in saved["versions"].items() if now.get(name) != old]
    if changed:
        print(f"warning: not the versions of that run, so the bytes may differ: {'; '.join(changed)}", file=sys.stderr)
    return dataclasses.replace(arguments, out=given.out, overwrite=given.overwrite), config
