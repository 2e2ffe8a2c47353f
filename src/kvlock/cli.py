"""The command line. Commands are frozen records; torch and diffusers are imported when one runs."""

import dataclasses
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kvlock.backbones.known_models import KNOWN_MODELS, KnownModel, known_model
from kvlock.core.config import KVLockConfig
from kvlock.methods.table import METHODS, MethodConfig, check_model, config_class, method_config
from kvlock.versions import versions

FLAG_NAMES = {"num_inference_steps": "steps"}
OTHER_VIDEOS = (".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v")
OUT_OF_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED")


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
    prompt: str = ""
    """What the edited clip shows."""
    source_prompt: str = ""
    """What the source shows; empty is fine."""
    negative_prompt: str = ""
    """What to steer away from."""
    out: str = ""
    """A folder for everything, or an .mp4 file for the edited clip alone."""
    model: str = "shapes"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    method: str = "kv-lock"
    """kv-lock, a row of the paper's ablation, or a baseline: plain, rigid, proedit, flowedit, sdedit, ..."""
    seed: int = 0
    """The noise belongs to the seed alone."""
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
    flow_shift: float | None = None
    """Timestep shift; the checkpoint's own where it is not given."""
    overwrite: bool = False
    """Replace files that exist."""
    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    """A run.json: make that edit again, to the byte on the same machine; only --out and --overwrite go with it."""
    config: Annotated[ConfigOverrides, tyro.conf.arg(name="")] = field(default_factory=ConfigOverrides)  # type: ignore

    def run(self) -> None:
        """Make the edit and write its files."""
        arguments, config = _replayed(self) if self.from_ else (self, self.resolved_config())
        _check_arguments(arguments)
        from kvlock.edit_command import run_edit

        run_edit(arguments, config)

    def resolved_config(self) -> MethodConfig:
        """The model's defaults, then the method's fields, then what the user gave."""
        known = known_model(self.model)
        if known:
            check_model(self.method, known.family == "wan-vace")
        overrides = {k: v for k, v in asdict(self.config).items() if v is not None}  # type: ignore[call-overload]
        return method_config(self.method, known.defaults if known else {}, overrides)

    def area_of(self, known: KnownModel | None) -> tuple[int, int] | None:
        """(height, width) whose area the clip is scaled to; None keeps the clip's own."""
        return size_of(self.size, known.size if known else None)


@dataclass(frozen=True)
class Demo:
    """Render a clip of the built-in world, edit it with KV-Lock, and say where to look."""

    out: str = "kvlock-demo"
    """Folder for the clip, its mask and the edit."""
    seed: int = 72
    """Which scene of the built-in world."""

    def run(self) -> None:
        """Scene, mask, edit; the files of an earlier demo are replaced."""
        if Path(self.out).suffix:
            raise ValueError(f"--out is {self.out}; expected a folder")
        from kvlock.bench.scenes import write_scene

        scene = write_scene(self.seed, Path(self.out))
        edit = Edit(
            clip=f"{self.out}/source.mp4",
            mask=f"{self.out}/mask.mp4",
            source_prompt=scene.source_prompt,
            prompt=scene.prompt,
            out=self.out,
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


@dataclass(frozen=True)
class ShapesRender:
    """Render scenes of the built-in world: source, mask and true edit as mp4, a PNG sheet, and JSON."""

    out: str
    """Folder to write to."""
    num: int = 8
    """How many scenes."""
    seed: int = 0
    """The first scene's seed; the others follow."""

    def run(self) -> None:
        """Write the scenes."""
        from kvlock.bench.scenes import render_scenes

        render_scenes(range(self.seed, self.seed + self.num), Path(self.out))
        print(f"{self.num} scenes in {self.out}")


@dataclass(frozen=True)
class ShapesTrain:
    """Train the built-in world's model: VAE, latents, transformer, decoder. Resumes where it was stopped."""

    out: str
    """Folder for the training state and, at the end, the two model folders."""
    stage: str = "all"
    """all, vae, latents, transformer, decoder or export."""
    vae_steps: int = 2600
    """Steps of the VAE, 8 crops each."""
    transformer_steps: int = 12000
    """Steps of the transformer, 16 clips each."""
    decoder_steps: int = 1500
    """Steps of the decoder alone, on whole clips."""
    clips: int = 12000
    """Clips that the transformer sees."""
    init: str = ""
    """A trained shapes-vace folder to start from; empty starts from random weights."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Run the stages."""
        from kvlock.backbones.loading import resolve_device
        from kvlock.bench.shapes_evaluation import draw_samples
        from kvlock.bench.training_curve import plot_training
        from kvlock.shapes.training import train_world

        steps = dict(vae=self.vae_steps, transformer=self.transformer_steps, decoder=self.decoder_steps)
        out, samples = Path(self.out), Path(self.out) / "samples"
        device = str(resolve_device(self.device))
        init = Path(self.init) if self.init else None
        if init and not (init / "model_index.json").is_file():
            raise ValueError(f"--init {init} is not a model folder; expected a trained shapes-vace")

        def draw(model: Path, step: int) -> None:
            draw_samples(model, samples, step)

        train_world(out, self.stage, steps, self.clips, device, draw, init)
        plot_training(out, out / "curve.png")


@dataclass(frozen=True)
class ShapesEvaluate:
    """Measure the built-in model on held-out scenes: VAE, edits by each method, text-to-video."""

    out: str
    """Folder for the numbers (JSON) and a contact sheet."""
    num: int = 64
    """How many scenes."""
    seed: int = 0
    """The first held-out seed."""
    steps: int = 30
    """Denoising steps."""
    methods: tuple[str, ...] = ("plain", "kv-lock")
    """Which methods edit the scenes."""
    model: str = "shapes"
    """The model to edit with."""
    t2v_model: str = "shapes-t2v"
    """The text-to-video model."""

    def run(self) -> None:
        """Measure and print."""
        from kvlock.bench.shapes_evaluation import evaluate_world

        evaluate_world(
            Path(self.out),
            range(self.seed, self.seed + self.num),
            self.steps,
            self.methods,
            self.model,
            self.t2v_model,
        )


Shapes = (
    Annotated[ShapesRender, tyro.conf.subcommand("render")]
    | Annotated[ShapesTrain, tyro.conf.subcommand("train")]
    | Annotated[ShapesEvaluate, tyro.conf.subcommand("evaluate")]
)


@dataclass(frozen=True)
class ShapesGroup:
    """The built-in world of moving shapes."""

    action: Annotated[Shapes, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    def run(self) -> None:
        """Run the chosen action."""
        self.action.run()


@dataclass(frozen=True)
class BenchRun:
    """Edit every clip of a suite by every method; stop and start it as you like, in as many processes as you like."""

    suite: Annotated[str, tyro.conf.Positional]
    """shapes (64 held-out scenes), shapes-validation, or a .jsonl manifest."""
    out: str
    """Folder for the results."""
    methods: str = "all"
    """Comma-separated names, or all. Each is scored with and without +composite."""
    model: str = "shapes"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    limit: int = 0
    """The first so many clips; 0 takes all."""
    seeds: str = "0"
    """One seed, or a range such as 0..2."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    config: Annotated[ConfigOverrides, tyro.conf.arg(name="")] = field(default_factory=ConfigOverrides)  # type: ignore

    def run(self) -> None:
        """Run what is not there yet."""
        from kvlock.bench.runner import CEILING, run_suite
        from kvlock.bench.suite import read_suite

        suite = read_suite(self.suite)
        if self.limit < 0:
            raise ValueError(f"--limit is {self.limit}; expected 0 (all) or more")
        if self.limit:
            suite = dataclasses.replace(suite, items=suite.items[: self.limit])
        known = known_model(self.model)
        everything = [m for m in METHODS if m != "vace" or (known and known.family == "wan-vace")]
        chosen = everything if self.methods == "all" else [m.strip() for m in self.methods.split(",") if m.strip()]
        overrides = {k: v for k, v in asdict(self.config).items() if v is not None}  # type: ignore[call-overload]
        run_suite(
            suite,
            self.model,
            (CEILING, *chosen),
            seed_range(self.seeds),
            overrides,
            Path(self.out),
            self.device,
            self.dtype,
        )


@dataclass(frozen=True)
class BenchTable:
    """Tables (Markdown, CSV) and an HTML report of what a folder holds so far."""

    out: Annotated[str, tyro.conf.Positional]
    """The folder given to `kvlock bench run`."""
    report_clips: int = 16
    """How many clips the report shows; 0 writes none."""

    def run(self) -> None:
        """Write and print."""
        from kvlock.bench.report import write_report
        from kvlock.bench.table import write_tables

        text = write_tables(Path(self.out))
        print(text)
        written = [f"{self.out}/table.md", f"{self.out}/table.csv"]
        if self.report_clips:
            written.append(str(write_report(Path(self.out), self.report_clips, text)))
        print(f"written: {', '.join(written)}")


@dataclass(frozen=True)
class BenchConvert:
    """Write the manifest of a public benchmark that lies on disk: vace, five, davis, or a plain folder of clips."""

    kind: Annotated[str, tyro.conf.Positional]
    """vace (VACE-Benchmark), five (FiVE-Bench), davis, or folder (CLIP/{video.mp4, mask.*, prompt.txt})."""
    root: Annotated[str, tyro.conf.Positional]
    """Where it was unpacked."""
    out: str
    """The manifest to write, a .jsonl file; its paths are relative to it."""
    prompts: str = ""
    """JSON {clip: prompt} for benchmarks without prompts on disk (vace, davis)."""

    def run(self) -> None:
        """Write the manifest."""
        from kvlock.bench.converters import convert
        from kvlock.bench.suite import write_suite

        out = Path(self.out)
        if out.suffix != ".jsonl" or not out.absolute().parent.is_dir():
            raise ValueError(f"--out is {self.out}; expected a .jsonl file in a folder that exists")
        items = convert(self.kind, Path(self.root), out, Path(self.prompts) if self.prompts else None)
        write_suite(items, out)
        print(f"{len(items)} clips in {out}")


Bench = (
    Annotated[BenchRun, tyro.conf.subcommand("run")]
    | Annotated[BenchTable, tyro.conf.subcommand("table")]
    | Annotated[BenchConvert, tyro.conf.subcommand("convert")]
)


@dataclass(frozen=True)
class BenchGroup:
    """Every method on every clip of a suite, with paired intervals."""

    action: Annotated[Bench, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    def run(self) -> None:
        """Run the chosen action."""
        self.action.run()


Command = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[ShapesGroup, tyro.conf.subcommand("shapes")]
    | Annotated[BenchGroup, tyro.conf.subcommand("bench")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


def _check_arguments(arguments: Edit) -> None:
    """What can be said before anything is loaded."""
    for name in ("clip", "mask", "prompt", "out"):
        if not getattr(arguments, name).strip():
            flag = "CLIP" if name == "clip" else f"--{name}"
            raise ValueError(f"{flag} is missing; see kvlock edit --help")
    if not 0.001 <= arguments.fps <= 1000:
        raise ValueError(f"--fps is {arguments.fps}; expected above 0, at most 1000")
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed is {arguments.seed}; expected 0 to 2**63 - 1")
    size_of(arguments.size, None)
    _check_out(Path(arguments.out), arguments.overwrite)


def seed_range(text: str) -> range:
    """`3` or `0..2`, both ends included. Raises ValueError for anything else."""
    first, dots, last = text.partition("..")
    if not (first.isdigit() and (last.isdigit() if dots else True)) or int(last or first) < int(first):
        raise ValueError(f"--seeds is {text!r}; expected a seed such as 0, or a range such as 0..2")
    return range(int(first), int(last or first) + 1)


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
        arguments = Edit(**{**saved["arguments"], "config": ConfigOverrides()})
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"--from {given.from_} is not a run.json of kvlock ({type(error).__name__}: {error})"
        ) from error
    now = versions()
    changed = [f"{name} {old}, now {now.get(name)}" for name, old in saved["versions"].items() if now.get(name) != old]
    if changed:
        print(f"warning: not the versions of that run, so the bytes may differ: {'; '.join(changed)}", file=sys.stderr)
    return dataclasses.replace(arguments, out=given.out, overwrite=given.overwrite), config


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it was done, 2 for what the user can mend, 4 out of memory, 130 interrupted."""
    command = tyro.cli(
        Command, prog="kvlock", description="Edit one thing in a video and keep the rest.", args=arguments
    )
    try:
        command.run()
    except (ValueError, ArithmeticError, OSError) as error:
        print(f"kvlock: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kvlock: interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        print("kvlock: out of memory; try --offload, a smaller --size, or fewer frames", file=sys.stderr)
        return 4
    return 0


def run_and_exit() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    run_and_exit()
