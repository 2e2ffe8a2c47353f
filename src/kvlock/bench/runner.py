"""`kvlock bench run`: every clip by every method, several clips of one size in a forward."""

import json
import time
from collections.abc import Iterator
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
from kvlock.backbones.loading import load_backbone, resolve_device, resolve_dtype, weights_digest
from kvlock.bench.jobs import Job, Workplace
from kvlock.bench.scenes import SEED_STRIDE, scene_clips, scene_request, scene_timing
from kvlock.bench.scores import Reference, score
from kvlock.bench.suite import Item, Suite
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest, EditResult
from kvlock.editing import default_config, edit, edit_clips, fit_of
from kvlock.media.composite import composite
from kvlock.media.fit import Fit, fit_video, unfit_video
from kvlock.media.mask import read_mask
from kvlock.media.video import Clip, read_video, write_video
from kvlock.methods.table import COMPOSITE, METHODS, MethodConfig, check_model, config_class
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
    suite: Suite, model: str, methods: tuple[str, ...], seeds: range, overrides: dict[str, Any], inputs: str = ""
) -> list[list[Job]]:
    """Batches of jobs that can run together; all methods of a few clips before the next few.

    A run that is stopped has so every method on the same clips. `inputs` tells weights and dtype apart.
    Raises ValueError for an unknown method or a field that none of the methods takes.
    """
    known = known_model(model)
    bare = tuple(dict.fromkeys(m.removesuffix(COMPOSITE) for m in methods))
    for method in bare:
        if method != CEILING and known:
            check_model(method, known.family == "wan-vace")
    edits = [m for m in bare if m != CEILING]
    for name in overrides:
        if not any(name in _fitting(m, overrides) for m in edits):
            raise ValueError(f"{name} is set by each of {', '.join(edits)} itself, or is not theirs; leave it out")
    configs = {m: None if m == CEILING else default_config(model, m, **_fitting(m, overrides)) for m in bare}
    told = {i.id: json.dumps(asdict(i), sort_keys=True) + inputs for i in suite.items}
    return [
        [Job(item.id, model, method, seed, configs[method], told[item.id]) for item in group]
        for group in batches_of(suite.items)
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
    """Do what is not done yet; other processes may be at the same folder.

    A clip that cannot be edited is left out and named at the end. Raises ValueError before anything is run for what
    is wrong with the call, and at the end where a clip failed.
    """
    backbone = None
    inputs = f"{resolve_dtype(dtype, str(resolve_device(device)))} {weights_digest(model)}"
    batches = plan_jobs(suite, model, methods, seeds, overrides, inputs)
    place = Workplace(out)
    _describe(out, suite, place)
    items = {item.id: item for item in suite.items}
    jobs = [job for batch in batches for job in batch]
    failures: dict[str, str] = {}
    with _progress(len(jobs), sum(map(place.is_done, jobs))) as advance:
        for batch in batches:
            with place.claimed(batch) as mine:
                if mine:
                    backbone = backbone or _load(model, methods, device, dtype)
                    try:
                        subjects = [load_subject(suite, items[job.item], job.seed) for job in batch]
                        _run(place, backbone, batch, subjects)
                    except (ValueError, ArithmeticError, OSError) as error:
                        failures[f"{batch[0].item} by {batch[0].method}"] = str(error)
            advance(batch[0], sum(map(place.is_done, jobs)))
    left = sum(not place.is_done(job) for job in jobs)
    print(f"{len(jobs) - left} of {len(jobs)} results in {out}" + (f"; {left} failed or with others" if left else ""))
    if failures:
        lines = [f"{name}: {error}" for name, error in failures.items()]
        raise ValueError("some clips could not be edited\n  " + "\n  ".join(lines))


def _load(model: str, methods: tuple[str, ...], device: str, dtype: str) -> Backbone:
    backbone = load_backbone(model, device, dtype)
    for method in methods:
        check_model(method.removesuffix(COMPOSITE), not backbone.needs_anchor)
    return backbone


def _run(place: Workplace, backbone: Backbone, batch: list[Job], subjects: list[Subject]) -> None:
    """Edit the whole batch and write those of its results that are not there."""
    began = time.monotonic()
    results = _edited(backbone, batch[0], subjects)
    seconds = (time.monotonic() - began) / len(batch)
    for job, subject, result in zip(batch, subjects, results):
        if not place.is_done(job):
            _write(place, job, subject, result, seconds, str(backbone.device))


def _edited(backbone: Backbone, job: Job, subjects: list[Subject]) -> list[EditResult]:
    if job.config:
        return edit_subjects(backbone, job.model, job.config, subjects)
    return [EditResult(_round_trip(backbone, s.known, _fit(backbone, job.model, s)), ()) for s in subjects]


def edit_subjects(backbone: Backbone, model: str, config: MethodConfig, subjects: list[Subject]) -> list[EditResult]:
    """Edit a batch of the built-in world's scenes together, or clips from files one by one."""
    if subjects[0].item.scene is not None:
        return edit_clips(backbone, [s.request for s in subjects], config)
    return [edit(backbone, s.request, config, _fit(backbone, model, s)) for s in subjects]


def batches_of(items: tuple[Item, ...]) -> list[list[Item]]:
    """What is edited together: scenes of the built-in world, which have one size, by BATCH; clips from files alone."""
    scenes, clips = ([i for i in items if (i.scene is None) == own] for own in (False, True))
    return [scenes[i : i + BATCH] for i in range(0, len(scenes), BATCH)] + [[clip] for clip in clips]


def _fit(backbone: Backbone, model: str, subject: Subject) -> Fit:
    known = known_model(model)
    size, most = (known.size, known.max_frames) if known else (None, MOST_FRAMES)
    return fit_of(backbone, subject.request, size, most)


@torch.no_grad()
def _round_trip(backbone: Backbone, known: Reference, fit: Fit) -> torch.Tensor:
    clip = known.source if known.truth is None else known.truth
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
        request = replace(
            scene_request(item.scene, noise=item.scene + SEED_STRIDE * seed),
            prompt=item.prompt,
            source_prompt=item.source_prompt,
            negative_prompt=item.negative_prompt,
        )
        clips = scene_clips(item.scene)
        known = Reference(clips["source"], request.mask.numpy(), clips["truth"], item.scene)
        return Subject(item, request, scene_timing(known.source), known)
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


def _describe(out: Path, suite: Suite, place: Workplace) -> None:
    """The suite, for the table and the report; several calls may add to it, none may change it."""
    record = {"name": suite.name, "folder": str(suite.folder.absolute()), "items": [asdict(i) for i in suite.items]}
    path = out / "suite.json"
    with place.alone():
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            elsewhere = before["folder"] != record["folder"] and any(item.video for item in suite.items)
            if before["name"] != record["name"] or elsewhere:
                raise ValueError(
                    f"--out {out} holds results of the suite {before['name']!r} in {before['folder']}; give another "
                    "folder"
                )
            known = {i["id"]: i for i in before["items"]}
            changed = [i["id"] for i in record["items"] if known.get(i["id"], i) != i]
            if changed:
                raise ValueError(f"--out {out} holds results of another {changed[0]!r}; give another folder")
            record["items"] = before["items"] + [i for i in record["items"] if i["id"] not in known]
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(record), encoding="utf-8")
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
