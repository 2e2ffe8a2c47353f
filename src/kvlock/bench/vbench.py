"""To VBench and back: its own networks for motion smoothness and imaging quality stand in no kept
library.

VBench pins versions that kvlock cannot share, so it runs in an environment of its own, on a folder
of clips.
"""

import shutil
from pathlib import Path
from typing import Any, TypedDict

from kvlock.bench.results import Result, Scores, add_scores, read_results
from kvlock.bench.scores import DIMENSIONS, IMAGING, with_composite
from kvlock.bench.subjects import MOST_FRAMES, load_subject
from kvlock.contract.records import RecordError, read_json, typed
from kvlock.media.video import read_video, write_video
from kvlock.methods.catalogue import COMPOSITE
from kvlock.work.folder import JobFolder


def export_videos(out: Path, folder: Path) -> int:
    """Every edit under `out`, with and without composite, as one folder of clips named by their
    jobs.

    Returns how many. Raises ValueError where there is no result, or `folder` is not empty.
    """
    suite, results = read_results(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; give another")
    folder.mkdir(parents=True, exist_ok=True)
    items = {item.id: item for item in suite.items}
    for result in results:
        shutil.copyfile(result.video, folder / f"{result.name}.mp4")
        clip = read_video(result.video, MOST_FRAMES)
        known = load_subject(suite, items[result.item], 0).known
        pasted = with_composite(clip.frames, known)[COMPOSITE]
        write_video(folder / f"{result.name}{COMPOSITE}.mp4", pasted, clip, lossless=True)
    return 2 * len(results)


def import_scores(out: Path, file: Path) -> str:
    """Take VBench's `*_eval_results.json` of an exported folder in; returns how many scores of
    which dimensions.

    Raises ValueError for a file that is none, or that scores no clip of `out`.
    """
    _, results = read_results(out)
    known = {f"{r.name}{suffix}": (r, suffix) for r in results for suffix in ("", COMPOSITE)}
    found: dict[str, tuple[Result, Scores]] = {}
    counts: dict[str, int] = {}
    for dimension, stem, value in _read(file):
        if stem in known:
            result, suffix = known[stem]
            _, scores = found.setdefault(result.name, (result, {}))
            scores.setdefault(suffix, {})[dimension] = value
            counts[dimension] = counts.get(dimension, 0) + 1
    if not found:
        expected = "expected the clips of kvlock bench export-vbench"
        raise ValueError(f"{file} scores no clip of {out}; {expected}")
    for result, scores in found.values():
        add_scores(JobFolder(out), result, scores, "VBench")
    return ", ".join(f"{count} of {len(known)} clips: {name}" for name, count in counts.items())


def _read(file: Path) -> list[tuple[str, str, float]]:
    """(dimension, clip's name, score in [0, 1]); VBench leaves single clips' imaging quality in 0
    to 100.
    """
    remedy = "expected VBench's *_eval_results.json"
    record = read_json(file, dict[str, Any], remedy)
    return [
        (name, Path(entry["video_path"]).stem, _share(name, entry["video_results"]))
        for name in DIMENSIONS
        if name in record
        for entry in _entries(file, name, record[name], remedy)
    ]


def _entries(file: Path, name: str, value: Any, remedy: str) -> list["_Entry"]:
    """Those of one dimension, which stand after its mean."""
    try:
        return typed(value, tuple[float, list[_Entry]], name)[1]
    except RecordError as error:
        raise RecordError(f"{file}: {error}; {remedy}") from None


class _Entry(TypedDict):
    video_path: str
    video_results: float


def _share(dimension: str, value: float) -> float:
    return float(value) / (100 if dimension == IMAGING else 1)
