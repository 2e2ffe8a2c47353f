"""`kvlock edit`: flags to an EditJob and back; what is done stands in `kvlock.editing`."""

# pyright: reportInvalidTypeForm=false

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import tyro

from kvlock.cli.groups import advanced, group, plain
from kvlock.core.config import Guidance, KVLockConfig
from kvlock.editing.job import SEEDS_END, EditJob, Size
from kvlock.methods.options import OPTIONS, PARTS, FlowEditConfig

if TYPE_CHECKING:
    from kvlock.contract.types import StepRecord
    from kvlock.editing.edit import EditPlan

METHODS_IN_SHORT = (
    "kv-lock: the paper's, the default. constant: the same lock without its signal. fast: computes "
    "the foreground alone, experimental on real models. flowedit-masked: for text-to-video models. "
    "plain: the model without any lock."
)


SHOWN = ("num_inference_steps", "guidance_scale")  # of a method's options, in the short help


@dataclass(frozen=True)
class ClipOptions:
    """The source, and where it may change."""

    clip: tyro.conf.Positional[plain(str, "CLIP")] = ""
    """The source: a video file, or a folder of PNG/JPEG frames."""
    mask: plain(str, "PATH") = ""
    """Where the edit may happen (white): a video, a folder, an image for all frames, or .npy."""
    invert_mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Edit where the mask is black."""
    dilate: int = 0
    """Grow the mask by that many pixels."""
    size: advanced(str) = "auto"
    """WIDTHxHEIGHT whose area the clip is scaled to for the model; auto is the model's, keep the clip's."""
    fps: advanced(float) = 16
    """Frame rate of a folder of frames; a video file keeps its own."""


@dataclass(frozen=True)
class PromptOptions:
    """What to show instead."""

    prompt: tyro.conf.UseAppendAction[plain(tuple[str, ...], "TEXT")] = ()
    """What the edited clip shows; give several to make several edits that share the source's work."""
    source_prompt: plain(str, "TEXT") = ""
    """What the source shows; empty is fine."""
    negative_prompt: advanced(plain(str | None, "TEXT")) = None
    """What to steer away from; the model family's own where it is not given."""
    seed: int = 0
    """The noise belongs to the seed alone."""
    seeds: advanced(plain(str, "A..B")) = ""
    """Several at once, such as 0..3: each draws the noise inside the mask."""
    background_seed: advanced(plain(int | None, "INT")) = None
    """Draws the noise outside the mask; the seed does where it is not given."""


@dataclass(frozen=True)
class ModelOptions:
    """What edits, and on what."""

    model: plain(str, "NAME") = ""
    """A name from `kvlock models`, a hub id, or a diffusers folder; no default."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16; the VAE is float32 always."""
    offload: plain(Literal["none", "model", "group"] | None) = None
    """What waits on the CPU: nothing, each part of the model, or each block; chosen by memory."""
    tile_vae: advanced(bool) = False
    """Encode and decode tile by tile, in less memory; moves pixels a little."""
    compile: advanced(bool) = False
    """Compile the transformer's blocks (torch.compile): a slow first step."""
    memory_check: advanced(bool) = True
    """Refuse an edit that the device has no room for, by an estimate."""
    flow_shift: advanced(plain(float | None, "FLOAT")) = None
    """Timestep shift; the model family's for the clip's size where it is not given."""
    branches: advanced(plain(Literal["batched", "sequential"] | None)) = None
    """Forwards in one batch or one by one; chosen by memory where it is not given."""
    source_store: advanced(plain(Literal["device", "host"] | None)) = None
    """Where the source's keys and values wait; chosen by memory where it is not given."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written."""

    out: plain(str, "PATH") = ""
    """A folder for everything, or an .mp4 file for the edited clip alone."""
    composite: bool = True
    """The source's own pixels outside the mask, exact beyond 8 px; --no-composite shows the model's."""
    lossless: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write RGB H.264 that decodes to the very bytes."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace files that exist."""
    from_: Annotated[plain(str, "RUN.JSON"), tyro.conf.arg(name="from")] = ""
    """A run.json: make that edit again, to the byte on the same machine."""
    accept_changes: advanced(bool) = False
    """With --from: go on although the clip, the mask or the weights changed."""


def method_options(first: list[Any]) -> type:
    """A group of `first`, --steps, --guidance-scale, and every other option, which are advanced."""
    columns = first + [_option_column(name) for name in option_fields()]
    made = dataclasses.make_dataclass("MethodOptions", columns, frozen=True)
    made.__doc__ = "How the edit is made."
    return made


def option_fields() -> dict[str, dataclasses.Field]:
    """Every option of every method, by name, in the order of the parts; the guidance comes first."""
    found = {}
    for record in (KVLockConfig, Guidance, *PARTS.values(), FlowEditConfig):
        for f in dataclasses.fields(record):
            if f.metadata.get("help"):
                found.setdefault(f.name, f)
    return found


def _option_column(name: str) -> tuple[str, Any, Any]:
    f = option_fields()[name]
    part = OPTIONS.get(name, "flowedit")
    always = part in ("", "lock", "signal", "guidance", "adaptive", "source")
    default = f"kv-lock: {f.default}" if always else f"where {part or 'it'} is on: {f.default}"
    words = f"{f.metadata['help']} ({default})"
    flag = {"num_inference_steps": "steps"}.get(name, name.replace("_", "-"))
    shown = tyro.conf.arg(name=flag, help=words, help_behavior_hint="", metavar=_metavar(f.type))
    kind = Annotated[f.type | None, shown]  # type: ignore[operator]
    if name not in SHOWN:
        kind = advanced(kind)
    return name, kind, field(default=None)


def _metavar(kind: Any) -> str:
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return "|".join(choices)
    numbers = {int: "INT", float: "FLOAT", bool: "True|False", int | float: "COUNT|FRACTION"}
    return numbers.get(kind, "VALUE")


_METHOD = ("method", Annotated[str, tyro.conf.arg(help=METHODS_IN_SHORT)], field(default="kv-lock"))
MethodOptions = method_options([_METHOD])


@dataclass(frozen=True)
class Edit:
    """Edit one thing in a clip and keep the rest. --help-all shows every option."""

    clip_and_mask: group(ClipOptions) = field(default_factory=ClipOptions)
    prompts: group(PromptOptions) = field(default_factory=PromptOptions)
    model: group(ModelOptions) = field(default_factory=ModelOptions)
    method: group(MethodOptions) = field(default_factory=MethodOptions)
    output: group(OutputOptions) = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Plan, edit, write; every line that is printed comes from there."""
        out, notes = Path(self.output.out), []
        if self.output.from_:
            job, notes = self._again()
        else:
            job = self.job()
        from kvlock.editing.outputs import check_out

        check_out(out, len(job.variants), self.output.overwrite)
        run_job(job, out, notes)

    def job(self) -> EditJob:
        """The flags as a job. Raises ValueError for a flag that is missing or makes no sense."""
        clip, prompts, model = self.clip_and_mask, self.prompts, self.model
        _require_flags({"CLIP": clip.clip, "--mask": clip.mask, "--out": self.output.out})
        if not prompts.prompt or not all(p.strip() for p in prompts.prompt):
            raise ValueError("--prompt is missing; see kvlock edit --help")
        if not model.model.strip():
            from kvlock.cli.models import usable_models

            raise ValueError(f"--model is missing; here could be used: {usable_models()}")
        if prompts.seeds and prompts.seed:
            raise ValueError("--seed and --seeds exclude each other; give one of them")
        given = dataclasses.asdict(self.method)  # type: ignore[call-overload]
        method = given.pop("method")
        return EditJob(
            clip.clip,
            clip.mask,
            prompts.prompt,
            model.model,
            method,
            {name: value for name, value in given.items() if value is not None},
            source_prompt=prompts.source_prompt,
            negative_prompt=prompts.negative_prompt,
            seeds=tuple(seed_range(prompts.seeds)) if prompts.seeds else (prompts.seed,),
            background_seed=prompts.background_seed,
            size=size_of(clip.size),
            fps=clip.fps,
            invert_mask=clip.invert_mask,
            dilate=clip.dilate,
            composite=self.output.composite,
            lossless=self.output.lossless,
            device=model.device,
            dtype=model.dtype,
            branches=model.branches,
            source_store=model.source_store,
            offload=model.offload,
            tile_vae=model.tile_vae,
            compile=model.compile,
            memory_check=model.memory_check,
            flow_shift=model.flow_shift,
        )

    def _again(self) -> tuple[EditJob, list[str]]:
        """The job of a run.json, beside which only what is written may be said."""
        from kvlock.editing.outputs import read_run

        others = dataclasses.replace(self, output=OutputOptions())
        if others != Edit():
            raise ValueError(
                "--from takes everything from the run.json; only --out, --overwrite and "
                "--accept-changes may stand beside it"
            )
        _require_flags({"--out": self.output.out})
        return read_run(Path(self.output.from_), self.output.accept_changes)


def run_job(job: EditJob, out: Path, notes: list[str]) -> None:
    """Plan, edit and write a job, with everything worth saying on the terminal."""
    from kvlock.editing.edit import plan, run
    from kvlock.editing.outputs import write

    planned = plan(job)
    for note in (*notes, *planned.notes):
        print(note, file=sys.stderr if note.startswith("warning") else sys.stdout)
    with progress(planned) as on_step:
        edits = run(planned, on_step)
    written = write(edits, out)
    for (prompt, seed), report in zip(job.variants, written.reports):
        print(report if len(job.variants) == 1 else f"{prompt}, seed {seed}: {report}")
    for note in written.notes:
        print(note)
    print(f"written: {out}")


@contextmanager
def progress(planned: "EditPlan") -> "Iterator[Callable[[list[StepRecord]], None]]":
    """A bar with an estimate; gives what each step's records go to, of which the first is shown."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = "variance {task.fields[variance]} alpha {task.fields[alpha]} omega {task.fields[omega]}"
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn(text))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("edit", total=planned.steps, variance="-", alpha="-", omega="-")

        def on_step(records: "list[StepRecord]") -> None:
            record = records[0]
            variance = "-" if record.variance is None else f"{record.variance:.4f}"
            alpha, omega = f"{record.fusion_ratio:.2f}", f"{record.guidance_scale:.2f}"
            bar.update(task, advance=1, variance=variance, alpha=alpha, omega=omega)

        yield on_step


def seed_range(text: str) -> range:
    """`3` or `0..2`, both ends included. Raises ValueError for anything else."""
    first, dots, last = text.partition("..")
    sound = first.isdecimal() and (last.isdecimal() if dots else True)
    if not sound or int(last or first) < int(first):
        raise ValueError(f"--seeds is {text!r}; expected a seed such as 0, or a range such as 0..2")
    if int(last or first) >= SEEDS_END:
        raise ValueError(f"--seeds is {text!r}; expected seeds from 0 to 2**63 - 1")
    return range(int(first), int(last or first) + 1)


def size_of(text: str) -> Size:
    """(height, width) of --size, or its two words. Raises ValueError for anything else."""
    if text == "auto" or text == "keep":
        return text
    width, x, height = text.partition("x")
    if not (x and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(
            f"--size is {text!r}; expected WIDTHxHEIGHT such as 832x480, auto, or keep"
        )
    return int(height), int(width)


def _require_flags(flags: dict[str, str]) -> None:
    for flag, value in flags.items():
        if not value.strip():
            raise ValueError(f"{flag} is missing; see kvlock edit --help")
