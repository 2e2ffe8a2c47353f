"""`kvlock bench run`: every clip by every method, several clips of one size in a forward."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kvlock.backbones.checkpoints import weights_digest
from kvlock.backbones.loading import load_backbone, resolve_device, resolve_dtype
from kvlock.bench.jobs import Job, plan_jobs
from kvlock.bench.results import ResultRecord, record_suite, result_record
from kvlock.bench.scores import score, with_composite
from kvlock.bench.subjects import Subject, edit_subjects, load_subject, round_trip
from kvlock.bench.suite import Suite
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditResult
from kvlock.media.video import write_video
from kvlock.work.folder import JobFolder


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
    """Do what is not done yet; other processes may work in the same folder.

    A clip that cannot be edited is left out and named at the end. Raises ValueError before anything
    is run for what is wrong with the call, and at the end where a clip failed.
    """
    backbone = None
    inputs = f"{resolve_dtype(dtype, str(resolve_device(device)))} {weights_digest(model)}"
    batches = plan_jobs(suite, model, methods, seeds, overrides, inputs)
    folder = JobFolder(out, ResultRecord)
    record_suite(folder, suite)
    items = {item.id: item for item in suite.items}
    jobs = [job for batch in batches for job in batch]
    failures: dict[str, str] = {}
    for damage in filter(None, (folder.damage(job.id) for job in jobs)):
        print(damage, file=sys.stderr)
    with _progress(len(jobs), _done(folder, jobs)) as bar:
        for batch in batches:
            with folder.claimed([job.id for job in batch]) as mine:
                if mine:
                    backbone = backbone or load_backbone(model, device, dtype)
                    try:
                        subjects = [load_subject(suite, items[j.item], j.seed) for j in batch]
                        bar.say(subjects)
                        _run(folder, backbone, batch, subjects)
                    except (ValueError, ArithmeticError, OSError) as error:
                        failures[f"{batch[0].item} by {batch[0].method}"] = str(error)
            bar.advance(batch[0], _done(folder, jobs))
    done = _done(folder, jobs)
    left = f"; {len(jobs) - done} failed or with others" if done < len(jobs) else ""
    print(f"{done} of {len(jobs)} results in {out}{left}")
    if failures:
        lines = [f"{name}: {error}" for name, error in failures.items()]
        raise ValueError("some clips could not be edited\n  " + "\n  ".join(lines))


def _done(folder: JobFolder, jobs: list[Job]) -> int:
    return sum(folder.is_done(job.id) for job in jobs)


def _run(folder: JobFolder, backbone: Backbone, batch: list[Job], subjects: list[Subject]) -> None:
    """Edit the whole batch and write those of its results that are not there."""
    began = time.monotonic()
    results = _edited(backbone, batch[0], subjects)
    seconds = (time.monotonic() - began) / len(batch)
    for job, subject, result in zip(batch, subjects, results):
        if not folder.is_done(job.id):
            _write(folder, job, subject, result, seconds, str(backbone.device))


def _edited(backbone: Backbone, job: Job, subjects: list[Subject]) -> list[EditResult]:
    if job.config:
        return edit_subjects(backbone, job.model, job.config, subjects)
    return [EditResult(round_trip(backbone, job.model, s), ()) for s in subjects]


def _write(
    folder: JobFolder, job: Job, subject: Subject, result: EditResult, seconds: float, device: str
) -> None:
    clips = with_composite(result.video, subject.known)
    scores = {suffix: score(clip, subject.known) for suffix, clip in clips.items()}
    record = result_record(job, subject.item.edit_type, scores, seconds, device)
    with folder.writing(job.id, record) as unfinished:
        write_video(unfinished / "edited.mp4", result.video, replace(subject.clip, path=Path()))
        trace = [asdict(record) for record in result.trace]
        (unfinished / "trace.json").write_text(json.dumps(trace))


class _Bar:
    """A run's progress on the terminal, and what is to be said of its clips, once each."""

    def __init__(self, progress: Progress, total: int, done: int):
        self._progress, self._said = progress, set[str]()
        self._task = progress.add_task("bench", total=total, completed=done, now="")

    def advance(self, job: Job, completed: int) -> None:
        """So many are done; `job` was the last."""
        self._progress.update(self._task, completed=completed, now=f"{job.item} {job.method}")

    def say(self, subjects: list[Subject]) -> None:
        """The clips' notes that were not said yet, above the bar."""
        for note in (f"{s.item.id}: {note}" for s in subjects for note in s.notes):
            if note not in self._said:
                self._said.add(note)
                self._progress.console.print(note, markup=False, highlight=False)


@contextmanager
def _progress(total: int, done: int) -> Iterator[_Bar]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, total, done)
