"""All classes of cases, and how one case is tried."""

import os
import random
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import masks, models, reading, records, stops
from benchmarks.faults.case import Case, perform
from benchmarks.faults.outcome import OUT, RIGHT
from benchmarks.faults.world import World, edit_words, make_world

Make = Callable[[World, Path, random.Random], Case]
CLASSES: dict[str, tuple[Make, int]] = {
    "healthy clips": (reading.healthy_clip, 250),
    "damaged clips": (reading.damaged_clip, 650),
    "frames": (reading.frames, 150),
    "masks": (masks.masks, 200),
    "model folders": (models.model_folders, 400),
    "run.json": (records.run_records, 150),
    "suites": (records.suites, 100),
    "results": (records.results, 100),
    "results made again": (records.results_again, 20),
    "kills": (stops.kills, 60),
    "full disk": (stops.full_disk, 60),
    "no network": (stops.no_network, 20),
}


@dataclass(frozen=True)
class Verdict:
    """Of one case; flaw is "" where it ended right."""

    kind: str
    number: int
    what: str
    command: str
    flaw: str


def attempt(world: World, root: Path, seed: int, kind: str, number: int) -> Verdict:
    """Make the case, run it and judge it. Its folder stays where it is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=root)) / "x"
    folder.mkdir()
    case = CLASSES[kind][0](world, folder, random.Random(f"{seed} {kind} {number}"))
    outcome = perform(case, folder)
    try:
        flaw = case.judge(outcome)
    except Exception as error:  # of the judge: one case is not judged, the others are
        flaw = f"the judge failed: {error!r}"
    if not flaw:
        shutil.rmtree(folder.parent)
    return Verdict(kind, number, case.what, shlex.join(["kvlock", *case.words]), flaw)


def ready_world(root: Path) -> World:
    """The whole files, an edit and a benchmark's run of them, with everything imported."""
    import kvlock.bench.report
    import kvlock.bench.runner
    import kvlock.cli.commands
    import kvlock.cli.edit
    import kvlock.editing.outputs  # noqa: F401  # forks are warm: none imports anything again

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    world = make_world(root)
    _whole(edit_words(world, root, OUT), root)
    began = time.monotonic()
    _whole([*edit_words(world, root, OUT), "--overwrite"], root)
    world.seconds = time.monotonic() - began
    world.baseline = (root / OUT / "edited.mp4").read_bytes()
    bench = records.bench_words(world, "shapes-validation", world.bench)
    world.bench.parent.mkdir()
    _whole([*bench, "--limit", "1"], root)
    return world


def _whole(words: list[str], root: Path) -> None:
    outcome = perform(Case(words, lambda _: RIGHT, "", seconds=600), root)
    if outcome.code != 0:
        raise RuntimeError(f"{shlex.join(words)}\n{outcome.complained}")
