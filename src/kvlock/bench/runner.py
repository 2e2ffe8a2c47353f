"""`kvlock bench run`: every clip by every method, several clips of one size in a forward."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kvlock.backbones.known_models import known_model
from kvlock.backbones.loading import load_backbone
from kvlock.bench.jobs import Job, Workplace
from kvlock.bench.scenes import scene_clips, scene_request
from kvlock.bench.scores import Reference, score
from kvlock.bench.suite import Item, Suite
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest, EditResult, StepRecord
from kvlock.editing import default_config, edit, edit_clips, fit_of
from kvlock.media.composite import composite
from kvlock.media.fit import fit_video, unfit_video
from kvlock.media.mask import read_mask
from kvlock.media.video import Clip, read_video, write_video
from kvlock.methods.table import COMPOSITE, METHODS, check_model, config_class
from kvlock.versions import versions

CEILING = "vae-ceiling"  # the truth, or where it is not known the source, through the VAE: what no edit can beat
BATCH = 8
MOST_FRAMES = 1024


@dataclass(frozen=True)
class Subject:
    """An item as it is edited and scored."""

    item: Item
    request: EditRequest
    clip: Clip
    known: Reference


def plan_jobs(
    suite: Suite, model: str, methods: tuple[str, ...], seeds: range, overrides: dict[str, Any]
) -> list[list[Job]]:
    """Batches of jobs that can run together; all methods of a few clips before the next few.

    A run that is stopped has so every method on the same clips. Raises ValueError for an unknown method or field.
    """
    known = known_model(model)
    bare = tuple(dict.fromkeys(m.removesuffix(COMPOSITE) for m in methods))
    for method in bare:
        if method != CEILING and known:
            check_model(method, known.family == "wan-vace")
    configs = {m: None if m == CEILING else default_config(model, m, **_fitting(m, overrides)) for m in bare}
    scenes, clips = ([i for i in suite.items if (i.scene is None) == own] for own in (False, True))
    groups = [scenes[i : i + BATCH] for i in range(0, len(scenes), BATCH)] + [[clip] for clip in clips]
    return [
        [Job(item.id, model, method, seed, configs[method]) for item in group]
        for group in groups
        for seed in seeds
        for method in bare
    ]


def _fitting(method: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """What of `overrides` a method takes: its own settings are what makes it that method, and stay."""
    known = {f.name for f in fields(config_class(method))} - set(METHODS[method])
    return {name: value for name, value in overrides.items() if name in known}


def run_suite(
    suite: Suite,
    model: str,
    methods: tuple[str, ...],
    seeds: range,
    overrides: dict[str, Any],
    out: Path,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Do what is not done yet; other processes may be at the same folder. Raises ValueError before anything is run."""
    batches = plan_jobs(suite, model, methods, seeds, overrides)
    place = Workplace(out)
    _describe(out, suite)
    items = {item.id: item for item in suite.items}
    if all(place.is_done(job) for batch in batches for job in batch):
        print(f"everything is done in {out}")
        return
    backbone = load_backbone(model, device, dtype)
    with _progress(sum(map(len, batches)), sum(place.is_done(j) for b in batches for j in b)) as advance:
        for batch in batches:
            if place.claim(batch):
                try:
                    _run(place, backbone, batch, [load_subject(suite, items[job.item], job.seed) for job in batch])
                finally:
                    place.give_back(batch)
            advance(batch[0], sum(place.is_done(j) for b in batches for j in b))
    left = sum(not place.is_done(job) for batch in batches for job in batch)
    print(f"written: {out}" + (f"; {left} jobs are still with other processes" if left else ""))


def _run(place: Workplace, backbone: Backbone, batch: list[Job], subjects: list[Subject]) -> None:
    """Edit the whole batch and write those of its results that are not there."""

    def alive(record: StepRecord | list[StepRecord]) -> None:
        place.sign_of_life(batch)

    began = time.monotonic()
    results = _edited(backbone, batch[0], subjects, alive)
    seconds = (time.monotonic() - began) / len(batch)
    for job, subject, result in zip(batch, subjects, results):
        if not place.is_done(job):
            _write(place, job, subject, result, seconds, str(backbone.device))


def _edited(backbone: Backbone, job: Job, subjects: list[Subject], alive: Callable[[Any], None]) -> list[EditResult]:
    if job.config is None:
        return [EditResult(_round_trip(backbone, s), ()) for s in subjects]
    if subjects[0].item.scene is not None:
        return edit_clips(backbone, [s.request for s in subjects], job.config, alive)
    known = known_model(job.model)
    size, most = (known.size, known.max_frames) if known else (None, MOST_FRAMES)
    request = subjects[0].request
    return [edit(backbone, request, job.config, fit_of(backbone, request, size, most), alive)]


@torch.no_grad()
def _round_trip(backbone: Backbone, subject: Subject) -> torch.Tensor:
    clip = subject.known.source if subject.known.truth is None else subject.known.truth
    fit = fit_of(backbone, subject.request, None, MOST_FRAMES)
    coded = backbone.decode_video(backbone.encode_video(fit_video(clip, fit)[None]))[0]
    return torch.from_numpy(unfit_video(coded, fit))


def _write(place: Workplace, job: Job, subject: Subject, result: EditResult, seconds: float, device: str) -> None:
    edited, known = result.video.numpy(), subject.known
    pasted = composite(known.source, edited, known.mask)
    record = {
        "job": asdict(job) | {"edit_type": subject.item.edit_type},
        "scores": {"": score(edited, known), COMPOSITE: score(pasted, known)},
        "seconds": seconds,
        "device": device,
        "versions": versions(),
    }
    with place.writing(job) as folder:
        write_video(folder / "edited.mp4", edited, replace(subject.clip, path=Path()))
        (folder / "trace.json").write_text(json.dumps([asdict(r) for r in result.trace]))
        (folder / "result.json").write_text(json.dumps(record, indent=1))


def load_subject(suite: Suite, item: Item, seed: int) -> Subject:
    """An item's clip, mask and truth. In the built-in world seed 0 stands for the scene's own seed."""
    if item.scene is not None:
        request = scene_request(item.scene, noise=item.scene + 1_000_003 * seed)
        clips = scene_clips(item.scene)
        known = Reference(clips["source"], request.mask.numpy(), clips["truth"], item.scene)
        rate = Fraction(8)
        return Subject(
            item, request, Clip(known.source, rate, tuple(range(len(known.source))), 1 / rate, Path()), known
        )
    clip = read_video(suite.folder / item.video, MOST_FRAMES, Fraction(item.fps).limit_denominator(1001))
    frames, height, width, _ = clip.frames.shape
    mask = read_mask(suite.folder / item.mask, frames, height, width, item.invert_mask)
    truth = read_video(suite.folder / item.truth, MOST_FRAMES).frames if item.truth else None
    if truth is not None and truth.shape != clip.frames.shape:
        raise ValueError(
            f"{item.id}: the truth is {truth.shape[:3]}, the clip {clip.frames.shape[:3]}; expected the same"
        )
    video, inside = torch.from_numpy(clip.frames), torch.from_numpy(np.ascontiguousarray(mask))
    request = EditRequest(video, inside, item.prompt, item.source_prompt, item.negative_prompt, seed)
    return Subject(item, request, clip, Reference(clip.frames, mask, truth))


def _describe(out: Path, suite: Suite) -> None:
    """The suite's name and folder, for the table and the report."""
    record = {"name": suite.name, "folder": str(suite.folder.absolute()), "items": [asdict(i) for i in suite.items]}
    path = out / "suite.json"
    if path.exists():
        before = json.loads(path.read_text())
        if before["name"] != suite.name:
            raise ValueError(f"--out {out} holds results of the suite {before['name']!r}; give another folder")
        known = {i["id"] for i in before["items"]}
        record["items"] = before["items"] + [i for i in record["items"] if i["id"] not in known]
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record))
    unfinished.replace(path)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Any]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("bench", total=total, completed=done, now="")

        def advance(job: Job, completed: int) -> None:
            bar.update(task, completed=completed, now=f"{job.item} {job.method}")

        yield advance
