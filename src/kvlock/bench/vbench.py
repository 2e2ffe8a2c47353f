"""To VBench and back: its own networks for motion smoothness and imaging quality stand in no kept library.

VBench pins versions that kvlock cannot share, so it runs in an environment of its own, on a folder of clips.
"""

import json
import shutil
from pathlib import Path

from kvlock.bench.jobs import Workplace
from kvlock.bench.networks import add_scores, read_results
from kvlock.bench.runner import MOST_FRAMES, load_subject
from kvlock.bench.scores import DIMENSIONS, IMAGING
from kvlock.media.composite import composite
from kvlock.media.video import read_video, write_video
from kvlock.methods.table import COMPOSITE


def export_videos(out: Path, folder: Path) -> int:
    """Every edit under `out`, with and without composite, as one folder of clips named by their jobs.

    Returns how many. Raises ValueError where there is no result, or `folder` is not empty.
    """
    results, suite = read_results(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; give another")
    folder.mkdir(parents=True, exist_ok=True)
    items = {item.id: item for item in suite.items}
    for result in results:
        path = out / "results" / result["folder"] / "edited.mp4"
        shutil.copyfile(path, folder / f"{result['folder']}.mp4")
        clip, known = read_video(path, MOST_FRAMES), load_subject(suite, items[result["job"]["item"]], 0).known
        pasted = composite(known.source, clip.frames, known.mask)
        write_video(folder / f"{result['folder']}{COMPOSITE}.mp4", pasted, clip, lossless=True)
    return 2 * len(results)


def import_scores(out: Path, file: Path) -> str:
    """Take VBench's `*_eval_results.json` of an exported folder in; returns how many scores of which dimensions.

    Raises ValueError for a file that is none, or that scores no clip of `out`.
    """
    results, _ = read_results(out)
    known = {f"{r['folder']}{suffix}": (r["folder"], suffix) for r in results for suffix in ("", COMPOSITE)}
    found: dict[str, dict[str, dict[str, float]]] = {}
    counts: dict[str, int] = {}
    for name, stem, value in _read(file):
        if stem in known:
            folder, suffix = known[stem]
            found.setdefault(folder, {}).setdefault(suffix, {})[name] = value
            counts[name] = counts.get(name, 0) + 1
    if not found:
        raise ValueError(f"{file} scores no clip of {out}; expected the clips of kvlock bench export-vbench")
    for folder, scores in found.items():
        add_scores(Workplace(out), folder, scores, "VBench")
    return ", ".join(f"{count} of {len(known)} clips: {name}" for name, count in counts.items())


def _read(file: Path) -> list[tuple[str, str, float]]:
    """(dimension, clip's name, score in [0, 1]); VBench leaves single clips' imaging quality in 0 to 100."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return [
            (name, Path(entry["video_path"]).stem, float(entry["video_results"]) / (100 if name == IMAGING else 1))
            for name, (_, entries) in record.items()
            if name in DIMENSIONS
            for entry in entries
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is not VBench's *_eval_results.json ({type(error).__name__}: {error})") from error
