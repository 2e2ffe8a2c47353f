"""What `kvlock edit` does: read, edit, report, write; files appear only when whole."""

import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kvlock.backbones.known_models import KnownModel, known_model
from kvlock.backbones.loading import load_backbone, resolve_device, resolve_dtype
from kvlock.core.config import KVLockConfig
from kvlock.core.types import EditRequest, StepRecord
from kvlock.editing import background_report, edit, fit_of
from kvlock.media.composite import composite
from kvlock.media.fit import Fit
from kvlock.media.mask import read_mask
from kvlock.media.pictures import contact_sheet, mask_overlay, plot_trace, side_by_side
from kvlock.media.video import Clip, read_video, write_video
from kvlock.methods.table import MethodConfig
from kvlock.versions import versions

if TYPE_CHECKING:
    from kvlock.cli.edit import Edit

MOST_FRAMES = 1024  # for models whose own limit is not known


def run_edit(arguments: "Edit", config: MethodConfig) -> None:
    """One edit from files to files."""
    known = known_model(arguments.model)
    clip, mask = _read(arguments, known)
    _warn(arguments, known, mask)
    backbone = load_backbone(
        arguments.model, arguments.device, arguments.dtype, arguments.offload, arguments.flow_shift
    )
    request = EditRequest(
        torch.from_numpy(clip.frames),
        torch.from_numpy(mask),
        arguments.prompt,
        arguments.source_prompt,
        arguments.negative_prompt,
        arguments.seed,
    )
    fit = fit_of(backbone, request, arguments.area_of(known), known.max_frames if known else MOST_FRAMES)
    run = _run_record(arguments, config, fit)
    print(f"clip: {fit}")
    with _progress(config.num_inference_steps - config.first_step) as on_step:
        result = edit(backbone, request, config, fit, on_step)
    edited = result.video.numpy()
    if arguments.composite:
        edited = composite(clip.frames, edited, mask)
    report = background_report(backbone, request, edited, fit)
    out = Path(arguments.out)
    if out.suffix.lower() == ".mp4":
        write_video(out, edited, clip, arguments.lossless)
    else:
        measured = {name: None if math.isnan(value) else value for name, value in asdict(report).items()}
        run |= {"background": measured}
        watched = config.threshold if isinstance(config, KVLockConfig) and config.watches_variance else None
        _write_folder(out, clip, mask, edited, result.trace, run, arguments.lossless, watched)
    print(f"{report}\nwritten: {out}")


def _read(arguments: "Edit", known: KnownModel | None) -> tuple[Clip, np.ndarray]:
    """The clip and its mask, after what is cheap to refuse."""
    resolve_dtype(arguments.dtype, str(resolve_device(arguments.device)))
    rate = Fraction(arguments.fps).limit_denominator(1001)
    clip = read_video(arguments.clip, known.max_frames if known else MOST_FRAMES, rate)
    frames, height, width, _ = clip.frames.shape
    return clip, read_mask(arguments.mask, frames, height, width, arguments.invert_mask, arguments.dilate)


def _warn(arguments: "Edit", known: KnownModel | None, mask: np.ndarray) -> None:
    """What is allowed, but seldom meant."""
    if mask.all():
        print("warning: the mask is full, so there is no background to keep", file=sys.stderr)
    if known and known.packaged:
        from kvlock.shapes.checkpoint import VOCABULARY

        words = re.findall(r"\w+", arguments.prompt)
        unknown = sorted({w for w in words if w not in VOCABULARY})
        if unknown:
            print(
                f"warning: the model {known.name} has never read {', '.join(unknown)}; its words are "
                f"{', '.join(VOCABULARY[3:])}",
                file=sys.stderr,
            )


def _run_record(arguments: "Edit", config: MethodConfig, fit: Fit) -> dict[str, Any]:
    """Everything that `--from` and a curious reader need: paths, device and dtype resolved."""
    device = resolve_device(arguments.device)
    dtype = str(resolve_dtype(arguments.dtype, str(device))).removeprefix("torch.")
    paths = {"clip": arguments.clip, "mask": arguments.mask}
    if Path(arguments.model).is_dir():
        paths["model"] = arguments.model
    resolved = {name: str(Path(path).absolute()) for name, path in paths.items()}
    return {
        "arguments": asdict(arguments) | resolved | {"device": str(device), "dtype": dtype},
        "config": asdict(config),
        "versions": versions(),
        "fit": str(fit),
    }


def _write_folder(
    out: Path,
    clip: Clip,
    mask: np.ndarray,
    edited: np.ndarray,
    trace: tuple[StepRecord, ...],
    run: dict[str, Any],
    lossless: bool,
    threshold: float | None,
) -> None:
    """All files in a hidden folder first, then moved into place together; `threshold` is for the trace's plot."""
    place = out if out.is_dir() else out.absolute().parent  # on one file system with what they are moved to
    unfinished = Path(tempfile.mkdtemp(prefix=".kvlock-", dir=place))
    try:
        write_video(unfinished / "edited.mp4", edited, clip, lossless)
        write_video(unfinished / "comparison.mp4", side_by_side(clip.frames, mask, edited), replace(clip, path=Path()))
        sheet = contact_sheet({"source": clip.frames, "mask": mask_overlay(clip.frames, mask), "edited": edited})
        sheet.save(unfinished / "sheet.png")
        (unfinished / "trace.json").write_text(json.dumps([asdict(r) for r in trace], indent=1))
        plot_trace(trace, threshold, unfinished / "trace.png")
        (unfinished / "run.json").write_text(json.dumps(run, indent=1))
        out.mkdir(exist_ok=True)
        for file in unfinished.iterdir():
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[StepRecord], None]]:
    """A bar with an estimate; gives the function that each step's record goes to."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("variance {task.fields[variance]} alpha {task.fields[alpha]} omega {task.fields[omega]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("edit", total=steps, variance="-", alpha="-", omega="-")

        def on_step(record: StepRecord) -> None:
            variance = "-" if record.variance is None else f"{record.variance:.4f}"
            alpha, omega = f"{record.fusion_ratio:.2f}", f"{record.guidance_scale:.2f}"
            bar.update(task, advance=1, variance=variance, alpha=alpha, omega=omega)

        yield on_step
