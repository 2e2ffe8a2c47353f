"""`kvlock edit`: flags to an EditJob and back; what is done stands in `kvlock.editing`."""

# pyright: reportInvalidTypeForm=false

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kvlock.cli.groups import advanced, group, plain
from kvlock.cli.mask import MarkOptions, check_folder, mask_job, write_files
from kvlock.cli.options import method_options
from kvlock.cli.run import run_job
from kvlock.cli.values import require_flags, seed_range, size_of
from kvlock.editing.job import EditJob

METHODS_IN_SHORT = (
    "kv-lock: the paper's, the default. constant: the same lock without its signal. fast: computes "
    "the foreground alone, experimental on real models. flowedit-masked: for text-to-video models. "
    "plain: the model without any lock."
)


@dataclass(frozen=True)
class ClipOptions:
    """The source, and where it may change."""

    clip: tyro.conf.Positional[plain(str, "CLIP")] = ""
    """The source: a video file, or a folder of PNG/JPEG frames."""
    mask: plain(str, "PATH") = ""
    """Where the edit may happen (white): a video, a folder, an image for all frames, npy, npz, json."""
    frame_mask: tyro.conf.UseAppendAction[plain(tuple[str, ...], "FRAME=PATH")] = ()
    """Instead of --mask: a frame's painted mask, such as 0=mask0.png, carried through the clip."""
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
    offload: plain(Literal["none", "model", "group"] | None, "{none,model,group}") = None
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
    """A folder for everything, or an .mp4 or .mkv file for the edited clip alone."""
    composite: bool = True
    """The source's own pixels outside the mask, exact beyond 8 px (in the file with --lossless)."""
    lossless: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write RGB H.264 that decodes to the very bytes."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace files that exist."""
    from_: Annotated[plain(str, "RUN.JSON"), tyro.conf.arg(name="from")] = ""
    """A run.json: make that edit again, to the byte on the same machine."""
    accept_changes: advanced(bool) = False
    """With --from: go on although the clip, the mask or the weights changed."""


MASK = "mask.mp4"  # of a folder that `kvlock mask` writes

_METHOD = ("method", Annotated[str, tyro.conf.arg(help=METHODS_IN_SHORT)], field(default="kv-lock"))
MethodOptions = method_options([_METHOD])


@dataclass(frozen=True)
class Edit:
    """Edit one thing in a clip and keep the rest. --help-all shows every option."""

    clip_and_mask: group(ClipOptions) = field(default_factory=ClipOptions)
    marks: group(MarkOptions) = field(default_factory=MarkOptions)
    prompts: group(PromptOptions) = field(default_factory=PromptOptions)
    model: group(ModelOptions) = field(default_factory=ModelOptions)
    method: group(MethodOptions) = field(default_factory=MethodOptions)
    output: group(OutputOptions) = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Plan, edit, write; every line that is printed comes from there."""
        job, notes = self._again() if self.output.from_ else (self.job(), [])
        if self._is_marked:
            self._write_mask(job)
        run_job(job, Path(self.output.out), self.output.overwrite, notes)

    def job(self) -> EditJob:
        """The flags as a job. Raises ValueError for a flag that is missing or makes no sense."""
        clip, prompts, model = self.clip_and_mask, self.prompts, self.model
        mask = str(self._mask_folder / MASK) if self._is_marked else clip.mask
        require_flags({"CLIP": clip.clip, "--mask": mask, "--out": self.output.out})
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
            mask,
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

    @property
    def _is_marked(self) -> bool:
        """Whether a mask is to be made of what is marked in some frames."""
        marked = self.marks != MarkOptions() or bool(self.clip_and_mask.frame_mask)
        if marked and self.clip_and_mask.mask:
            raise ValueError(
                "--mask is a mask for all frames; leave it away, or --frame-mask, --box, --point "
                "and --text"
            )
        return marked

    @property
    def _mask_folder(self) -> Path:
        """Beside the edit: NAME-mask."""
        return Path(f"{str(Path(self.output.out)).removesuffix('.mp4').removesuffix('.mkv')}-mask")

    def _write_mask(self, job: EditJob) -> None:
        """The mask, where neither it nor the edit is refused."""
        from kvlock.editing.destination import check_out

        check_out(job, Path(self.output.out), self.output.overwrite)
        check_folder(self._mask_folder, self.output.overwrite)
        clip, device = self.clip_and_mask, self.model.device
        made = mask_job(clip.clip, self.marks, clip.frame_mask, device=device, fps=clip.fps)
        write_files(made, self._mask_folder, self.output.overwrite)

    def _again(self) -> tuple[EditJob, list[str]]:
        """The job of a run.json, beside which only what is written may be said."""
        from kvlock.editing.outputs import read_run

        others = dataclasses.replace(self, output=OutputOptions())
        if others != Edit():
            raise ValueError(
                "--from takes everything from the run.json; only --out, --overwrite and "
                "--accept-changes may stand beside it"
            )
        require_flags({"--out": self.output.out})
        return read_run(Path(self.output.from_), self.output.accept_changes)
