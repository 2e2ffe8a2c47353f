"""An edit's files: whole or absent, what matters first, what illustrates where it can be made."""

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from kvlock.backbones.checkpoints import weights_digest
from kvlock.contract.records import read_json
from kvlock.contract.types import StepRecord
from kvlock.core.config import KVLockConfig
from kvlock.editing.clips import BackgroundReport, background_reports
from kvlock.editing.destination import KEPT, RUN, claimed_out, is_file
from kvlock.editing.edit import EditPlan, Edits
from kvlock.editing.job import EditJob, job_from_dict, job_to_dict
from kvlock.editing.room import explained_by_room
from kvlock.media.files import write_json
from kvlock.media.pictures import contact_sheet, mask_overlay, side_by_side
from kvlock.media.trace_plot import plot_trace
from kvlock.media.video import write_video
from kvlock.methods.options import MethodConfig, watches_variance
from kvlock.versions import versions
from kvlock.work.claim import publish

NO_RUN = "expected a run.json of kvlock edit"


class _Run(TypedDict):
    job: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Written:
    """What `write` left: the background's reports, one a variant, and sentences for the user."""

    out: Path
    reports: tuple[BackgroundReport, ...]
    notes: tuple[str, ...]


def write(edits: Edits, out: Path) -> Written:
    """Write what `run` made; then measure the background and add that to run.json.

    An .mp4 or .mkv is the edited clip alone. A folder holds edited.mp4, trace.json, run.json and,
    where they can be made, comparison.mp4, sheet.png and trace.png; of several variants each has
    its folder. Files of the same names are replaced. Raises ValueError or OSError where the edit
    itself cannot be written; nothing is left then.
    """
    with claimed_out(edits.plan.job, out, overwrite=True) as work:
        return write_claimed(edits, out, work, overwrite=True)


def write_claimed(edits: Edits, out: Path, work: Path, overwrite: bool) -> Written:
    """The same where `work` is `out`'s working folder already. What is kept there goes."""
    planned, record = edits.plan, record_of(edits.plan)
    made = work / f"new{out.suffix if is_file(out) else ''}"
    with explained_by_room(planned, out):
        notes = _write_new(edits, made, record, is_file(out))
        publish(made, out, overwrite)
    shutil.rmtree(work / KEPT, ignore_errors=True)
    reports = _measured(edits, notes)
    if reports and not is_file(out):
        try:
            write_json(out / RUN, record | {"background": [_numbers(r) for r in reports]})
        except OSError as error:
            notes.append(f"{RUN} is without the background's numbers ({error}); the edit is whole")
    return Written(out, reports, tuple(notes + explain(planned, edits.traces[0])))


def read_run(path: Path, accept_changes: bool = False) -> tuple[EditJob, list[str]]:
    """The job of a run.json, and sentences on what is no longer the same.

    Raises ValueError for what is none, and where the clip, the mask or the weights changed, unless
    told to accept that.
    """
    if (path / RUN).is_file():
        raise ValueError(f"{path} is a folder; did you mean {path / RUN}?")
    saved = read_json(path, _Run, NO_RUN)
    try:
        job, inputs, before = job_from_dict(saved["job"]), saved["inputs"], saved["versions"]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {NO_RUN}") from error
    notes = []
    changed = [name for name, digest in _inputs(job).items() if digest != inputs.get(name)]
    if changed:
        what = f"{', '.join(changed)} changed since {path} was written"
        if not accept_changes:
            raise ValueError(f"{what}; give back the old one, or add --accept-changes")
        notes.append(f"warning: {what}")
    now = versions()
    moved = [f"{n} {old}, now {now.get(n)}" for n, old in before.items() if now.get(n) != old]
    if moved:
        notes.append(
            f"warning: not the versions of that run, so the bytes may differ: {'; '.join(moved)}"
        )
    return job, notes


def explain(planned: EditPlan, trace: tuple[StepRecord, ...]) -> list[str]:
    """In plain words, where the schedules had nothing to decide in this edit; and what to try."""
    config = planned.config
    if not isinstance(config, KVLockConfig) or not watches_variance(config):
        return []
    late = [r for r in trace if r.step >= config.first_lock_step and r.variance is not None]
    if not late:
        return []
    found, tau = [], config.signal.threshold
    alphas, adaptive = [r.fusion_ratio for r in late], config.guidance.adaptive
    if config.lock and config.lock.fusion_ratio == "variance":
        if min(alphas) >= 1:
            found.append("alpha stood at 1 in every lock step: the variance never fell below tau")
        elif max(alphas) <= 0.01:
            found.append("alpha stood at 0 in every lock step: the variance is far below tau")
    top = _omega_clamp(config)
    if adaptive and top and min(r.guidance_scale for r in late) >= top * (1 - 1e-5):
        found.append("omega stood at its upper clamp in every lock step")
    if not found:
        return []
    middle = sorted(r.variance for r in late if r.variance is not None)[len(late) // 2]
    return [
        f"{'; '.join(found)} (tau {tau:g}, median variance {middle:.2g}). So nothing was scheduled; "
        f"try --threshold {2 * middle:.2g}, or kvlock calibrate {planned.job.model} and "
        "--method calibrated"
    ]


def _omega_clamp(config: MethodConfig) -> float | None:
    """The highest omega that the config allows."""
    if not isinstance(config, KVLockConfig):
        return None
    adaptive, rest = config.guidance.adaptive, config.guidance.guidance_scale
    return rest * adaptive.guidance_boost if adaptive else rest


def record_of(planned: EditPlan) -> dict[str, Any]:
    """A run.json: all that --from and a curious reader need; no job of a clip that has no path."""
    job = planned.job
    kept = {"versions": versions(), "fit": str(planned.fit), "notes": list(planned.notes)}
    try:
        made = job_to_dict(job, planned.config, planned.execution)
    except ValueError:  # a clip in memory cannot be edited again from its path
        return kept
    return {"job": made, "inputs": _inputs(job)} | kept


def _inputs(job: EditJob) -> dict[str, str]:
    digests = {name: _digest(Path(str(getattr(job, name)))) for name in ("clip", "mask")}
    return digests | {"weights": weights_digest(job.model)}


def _digest(path: Path) -> str:
    """Of a file's bytes, or of all files of a folder."""
    digest = hashlib.sha256()
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _write_new(edits: Edits, made: Path, record: dict[str, Any], is_alone: bool) -> list[str]:
    """The edited clip alone, or a folder with everything; sentences on what is missing."""
    if is_alone:
        write_video(made, edits.videos[0], edits.plan.clip, edits.plan.job.lossless)
        return []
    made.mkdir()
    notes = _write_all(edits, made)
    write_json(made / RUN, record)
    return notes


def _write_all(edits: Edits, folder: Path) -> list[str]:
    """The files of one edit, or a folder a variant and a sheet of all; sentences on what is missing."""
    planned, notes = edits.plan, []
    if len(edits.videos) == 1:
        return _write_edit(planned, edits.videos[0], edits.traces[0], folder)
    source = planned.clip.frames
    rows = {"source": source, "mask": mask_overlay(source, planned.mask)}
    made = zip(planned.job.variants, edits.videos, edits.traces)
    for number, ((prompt, seed), video, trace) in enumerate(made, start=1):
        name = f"variant-{number}"
        (folder / name).mkdir()
        notes += _write_edit(planned, video, trace, folder / name)
        rows[f"{name}: {prompt}, seed {seed}"] = video
    return notes + _illustrate({"sheet.png": lambda path: contact_sheet(rows).save(path)}, folder)


def _write_edit(
    planned: EditPlan, video: Tensor, trace: tuple[StepRecord, ...], folder: Path
) -> list[str]:
    clip, mask, config = planned.clip, planned.mask, planned.config
    write_video(folder / "edited.mp4", video, clip, planned.job.lossless)
    write_json(folder / "trace.json", [asdict(r) for r in trace])
    watched = isinstance(config, KVLockConfig) and watches_variance(config)
    threshold = config.signal.threshold if watched else None  # type: ignore[union-attr]
    first = config.first_lock_step if isinstance(config, KVLockConfig) else None
    clamp = _omega_clamp(config)
    rows = {"source": clip.frames, "mask": mask_overlay(clip.frames, mask), "edited": video}
    silent = replace(clip, path=Path())
    pictures: dict[str, Callable[[Path], Any]] = {
        "comparison.mp4": lambda path: write_video(
            path, side_by_side(clip.frames, mask, video), silent
        ),
        "sheet.png": lambda path: contact_sheet(rows).save(path),
        "trace.png": lambda path: plot_trace(trace, threshold, path, first, clamp),
    }
    return _illustrate(pictures, folder)


def _illustrate(pictures: Mapping[str, Callable[[Path], Any]], folder: Path) -> list[str]:
    """What only illustrates never costs the edit: one sentence where it cannot be made."""
    missing = []
    for name, make in pictures.items():
        try:
            make(folder / name)
        except Exception as error:
            (folder / name).unlink(missing_ok=True)
            missing.append(f"{name} is missing, it could not be made ({error}); the edit is whole")
    return missing


def _measured(edits: Edits, notes: list[str]) -> tuple[BackgroundReport, ...]:
    planned = edits.plan
    try:
        ceiling = edits.source_through_vae()
    except (RuntimeError, MemoryError) as error:  # out of memory, with the edit written already
        notes.append(f"the background was not measured ({error}); the edit is whole")
        return ()
    clips = (planned.clip.frames, planned.mask, ceiling, *edits.videos)
    source, mask, ceiling, *edited = (clip.to(edits.device) for clip in clips)
    return tuple(background_reports(source, mask, edited, ceiling))


def _numbers(report: BackgroundReport) -> dict[str, float | None]:
    return {n: None if math.isnan(v) else v for n, v in asdict(report).items()}
