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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kvlock.backbones.estimate import Estimator, Place, settle
from kvlock.backbones.known_models import KnownModel, known_model
from kvlock.backbones.loading import load_backbone, resolve_device, resolve_dtype
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import latent_foreground
from kvlock.core.types import EditRequest, StepRecord
from kvlock.editing import BackgroundReport, background_report, edit_variants, fit_of
from kvlock.media.composite import composite
from kvlock.media.fit import Fit, fit_mask
from kvlock.media.mask import read_mask
from kvlock.media.pictures import contact_sheet, mask_overlay, plot_trace, side_by_side
from kvlock.media.video import Clip, read_video, write_video
from kvlock.methods.table import FlowEditConfig, MethodConfig
from kvlock.versions import versions

if TYPE_CHECKING:
    from kvlock.cli.edit import Edit

MOST_FRAMES = 1024  # for models whose own limit is not known


def run_edit(arguments: "Edit", config: MethodConfig, given: set[str]) -> None:
    """One edit, or several of one clip, from files to files; what is `given` of the config is not chosen here."""
    known = known_model(arguments.model)
    clip, mask = _read(arguments, known)
    _warn(arguments, known, mask)
    requests = _requests(arguments, clip, mask)
    device = resolve_device(arguments.device)
    estimator = Estimator(arguments.model, resolve_dtype(arguments.dtype, str(device)), arguments.tile_vae)
    fit = fit_of(estimator.backbone, requests[0], arguments.area_of(known), known.max_frames if known else MOST_FRAMES)
    if isinstance(config, KVLockConfig) and arguments.memory_check:
        foreground = latent_foreground(fit_mask(mask, fit)[None], estimator.backbone.vae_stride)[0]
        place = Place(device, fit.model, foreground, len(requests), arguments.offload)
        asked, config = config, settle(estimator, config, given, place)
        chosen = [name for name in ("rows", "source_store") if getattr(asked, name) != getattr(config, name)]
        for name in chosen:
            print(f"chosen to save memory: --{name.replace('_', '-')} {getattr(config, name)}")
    backbone = load_backbone(
        arguments.model,
        arguments.device,
        arguments.dtype,
        arguments.offload,
        arguments.flow_shift,
        tile_vae=arguments.tile_vae,
        compile_blocks=arguments.compile,
    )
    print(f"clip: {fit}")
    rounds = len(requests) if isinstance(config, FlowEditConfig) else 1
    with _progress(rounds * (config.num_inference_steps - config.first_step)) as on_step:
        results = edit_variants(backbone, requests, config, fit, on_step)
    videos = [result.video.numpy() for result in results]
    if arguments.composite:
        videos = [composite(clip.frames, edited, mask) for edited in videos]
    reports = [background_report(backbone, requests[0], edited, fit) for edited in videos]
    out, run = Path(arguments.out), _run_record(arguments, config, fit)
    watched = config.threshold if isinstance(config, KVLockConfig) and config.watches_variance else None
    writers = [
        partial(_write_edit, clip, mask, edited, result.trace, arguments.lossless, watched)
        for edited, result in zip(videos, results)
    ]
    if out.suffix.lower() == ".mp4":
        write_video(out, videos[0], clip, arguments.lossless)
    elif len(results) == 1:
        _write_whole(out, writers[0], run | {"background": _measured(reports[0])})
    else:
        _write_variants(out, writers, requests, reports, videos, run)
    for request, report in zip(requests, reports):
        print(report if len(requests) == 1 else f"{request.prompt}, seed {request.seed}: {report}")
    print(f"written: {out}")


def _requests(arguments: "Edit", clip: Clip, mask: np.ndarray) -> list[EditRequest]:
    """One a variant, of the same tensors."""
    video, inside, variants = torch.from_numpy(clip.frames), torch.from_numpy(mask), arguments.variants()
    background = arguments.background_seed
    if background is None and len(variants) > 1:
        background = variants[0][1]
    return [
        EditRequest(video, inside, prompt, arguments.source_prompt, arguments.negative_prompt, seed, background)
        for prompt, seed in variants
    ]


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

        words = re.findall(r"\w+", " ".join(arguments.prompt))
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


def _measured(report: BackgroundReport) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(report).items()}


def _write_edit(
    clip: Clip,
    mask: np.ndarray,
    edited: np.ndarray,
    trace: tuple[StepRecord, ...],
    lossless: bool,
    threshold: float | None,
    folder: Path,
) -> None:
    """The clips, the pictures and the trace of one edit; `threshold` is for the trace's plot."""
    write_video(folder / "edited.mp4", edited, clip, lossless)
    write_video(folder / "comparison.mp4", side_by_side(clip.frames, mask, edited), replace(clip, path=Path()))
    sheet = contact_sheet({"source": clip.frames, "mask": mask_overlay(clip.frames, mask), "edited": edited})
    sheet.save(folder / "sheet.png")
    (folder / "trace.json").write_text(json.dumps([asdict(r) for r in trace], indent=1))
    plot_trace(trace, threshold, folder / "trace.png")


def _write_variants(
    out: Path,
    writers: list[Callable[[Path], None]],
    requests: list[EditRequest],
    reports: list[BackgroundReport],
    videos: list[np.ndarray],
    run: dict[str, Any],
) -> None:
    """A folder a variant, and one sheet of all."""
    out.mkdir(exist_ok=True)
    variants, source = [], requests[0].video.numpy()
    rows = {"source": source, "mask": mask_overlay(source, requests[0].mask.numpy())}
    for number, (write, request, report, edited) in enumerate(zip(writers, requests, reports, videos), start=1):
        folder = f"variant-{number}"
        _write_whole(out / folder, write)
        variants.append({"folder": folder, "prompt": request.prompt, "seed": request.seed} | _measured(report))
        rows[f"{folder}: {request.prompt}, seed {request.seed}"] = edited
    _write_whole(out, lambda folder: contact_sheet(rows).save(folder / "sheet.png"), run | {"variants": variants})


def _write_whole(out: Path, write: Callable[[Path], None], run: dict[str, Any] | None = None) -> None:
    """`write` fills a hidden folder first; then its files and run.json are moved into place together."""
    place = out if out.is_dir() else out.absolute().parent  # on one file system with what they are moved to
    unfinished = Path(tempfile.mkdtemp(prefix=".kvlock-", dir=place))
    try:
        write(unfinished)
        if run:
            (unfinished / "run.json").write_text(json.dumps(run, indent=1))
        out.mkdir(exist_ok=True)
        for file in unfinished.iterdir():
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[list[StepRecord]], None]]:
    """A bar with an estimate; gives the function that each step's records go to, of which the first is shown."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("variance {task.fields[variance]} alpha {task.fields[alpha]} omega {task.fields[omega]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("edit", total=steps, variance="-", alpha="-", omega="-")

        def on_step(records: list[StepRecord]) -> None:
            record = records[0]
            variance = "-" if record.variance is None else f"{record.variance:.4f}"
            alpha, omega = f"{record.fusion_ratio:.2f}", f"{record.guidance_scale:.2f}"
            bar.update(task, advance=1, variance=variance, alpha=alpha, omega=omega)

        yield on_step
