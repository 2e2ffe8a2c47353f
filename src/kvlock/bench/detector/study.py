"""The edits of the study: plain sampling of every scene in several variants, every signal taken
after each step.
"""

import json
import sys
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from rich.console import Console
from rich.progress import track
from torch import Tensor

from kvlock.backbones.checkpoints import weights_digest
from kvlock.backbones.loading import load_backbone
from kvlock.bench.detector.edits import FEEDBACK, TRACED
from kvlock.bench.detector.report import write_report
from kvlock.bench.detector.signals import History, across_seeds, signals
from kvlock.bench.jobs import config_for
from kvlock.contract.backbone import Backbone
from kvlock.contract.records import RecordError, read_json
from kvlock.contract.types import Control, EditRequest, EditResult, Step, StepRecord
from kvlock.core.branches import Branches
from kvlock.core.edit import edit_clips
from kvlock.core.guidance import combine
from kvlock.media.files import write_json
from kvlock.methods.options import chosen_options
from kvlock.shapes.answers import NOTHING, nearest_mode, wanted_mode
from kvlock.shapes.scene import random_edit
from kvlock.shapes.scenes import SEED_STRIDE, scene_clips, scene_request
from kvlock.versions import versions
from kvlock.work.folder import make_inside

SCENES_TOGETHER = 2


class _Watching(TypedDict):
    scene: int
    variant: int
    wrong: bool
    error: float
    leaves_object: bool
    signals: dict[str, list[float | None]]
    traces: NotRequired[dict[str, dict[str, list[float | None]]]]


class _Run(TypedDict):
    model: str
    weights: str
    variants: int
    configs: dict[str, Any]


SAME = ("model", "weights", "variants", "configs")  # what one folder's batches have in common


def run_detector(
    out: Path,
    model: str,
    scenes: range,
    variants: int,
    overrides: dict[str, Any],
    device: str = "auto",
) -> str:
    """Edit every scene in several variants by plain sampling, watch every signal, and say how well
    it separates.

    `overrides` are fields of every config, plain sampling's and the watched schedules'.

    Batches that are there are kept, so that a stopped run goes on. Returns the table; writes it
    beside the plots, `detector.csv` and `detector.json`. Raises ValueError for fewer than two
    variants or no scenes.
    """
    if variants < 2 or overrides.get("num_inference_steps", 2) < 2 or not len(scenes):
        raise ValueError("expected 1 scene or more, 2 variants or more, and 2 steps or more")
    methods = ("plain", *FEEDBACK)
    configs: dict[str, Any] = {m: config_for(model, m, overrides) for m in methods}
    backbone = load_backbone(model, device)
    record = {
        "model": model,
        "weights": weights_digest(model),
        "variants": variants,
        "configs": {m: chosen_options(c) for m, c in configs.items()},
    }
    _same_run(out, record | {"versions": versions(), "device": str(backbone.device)})
    groups = [scenes[i : i + SCENES_TOGETHER] for i in range(0, len(scenes), SCENES_TOGETHER)]
    edits = []
    for group in track(groups, "detector", console=Console(stderr=True)):
        path = out / "batches" / f"{group.start:06d}-{group.stop:06d}.json"
        if not _is_whole(path):
            write_json(path, _watch(backbone, group, variants, configs))
        edits += read_json(path, list[_Watching], "remove it, and it is made again")
    return write_report(out, edits, configs["kv-lock"])


def _watch(
    backbone: Backbone, scenes: range, variants: int, configs: dict[str, Any]
) -> list[dict[str, Any]]:
    """All variants of a few scenes in one batch: what each edit became, and its signals after each
    step.
    """
    pairs = [(scene, variant) for variant in range(variants) for scene in scenes]
    requests = [
        scene_request(scene, noise=scene + SEED_STRIDE * variant) for scene, variant in pairs
    ]
    seen: dict[str, list[list[float | None]]] = {}
    results = edit_clips(
        backbone,
        requests,
        configs["plain"],
        make_forwards=lambda branches: _Watched(branches, variants, seen),
    )
    firsts = requests[: len(scenes)]
    feedback = {m: edit_clips(backbone, firsts, configs[m]) for m in FEEDBACK}
    edits = []
    for i, ((scene, variant), result) in enumerate(zip(pairs, results)):
        edit = {"scene": scene, "variant": variant} | _outcome(scene, requests[i], result)
        edit["signals"] = {name: [s[i] for s in values] for name, values in seen.items()}
        if variant == 0:
            edit["traces"] = {m: _trace(feedback[m][i].trace) for m in FEEDBACK}
        edits.append(edit)
    return edits


def _outcome(scene: int, request: EditRequest, result: EditResult) -> dict[str, Any]:
    """What an edit became; `error` is its mean squared error inside the mask, in squared grey
    levels.
    """
    found, wanted = nearest_mode(result.video, scene), wanted_mode(random_edit(scene))
    difference = result.video.double() - scene_clips(scene)["truth"].double()
    return {
        "wrong": found.mode != wanted,
        "mode_distance": found.distance,
        "error": float((difference[request.mask] ** 2).mean()),
        "leaves_object": wanted != NOTHING,
    }


class _Watched:
    """The branches' forwards, and beside them every signal after each step, put into `seen`.

    The source branch runs beside the edit. Of plain sampling: nothing replaces what it predicts.
    """

    computed = None

    def __init__(
        self, branches: Branches, variants: int, seen: dict[str, list[list[float | None]]]
    ):
        self._branches, self._variants, self._seen = branches, variants, seen
        self._history = History()

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """The branches' own predictions."""
        predictions = self._branches.predict(step, latents, source, control)
        omega = control.guidance_scale
        guided = combine(self._branches, step, predictions, omega, latents, None, None).prediction
        denoised, conditional, unconditional = (
            self._branches.sampler.denoised(latents, prediction, step.index)
            for prediction in (guided, predictions[0], predictions[-1])
        )
        clean = self._source_prediction(step.index, source)
        self._history = self._history.after(denoised, conditional, clean)
        self._watch(denoised, unconditional)
        return predictions

    def _watch(self, denoised: Tensor, unconditional: Tensor) -> None:
        clips = self._branches.clips
        found = signals(self._history, unconditional, clips.source, clips.foreground)
        found["variance across seeds"] = self._across_seeds(denoised)
        for name, values in found.items():
            if values is None:
                numbers: list[float | None] = [None] * len(denoised)
            else:
                numbers = values.tolist()
            self._seen.setdefault(name, []).append(numbers)

    def _source_prediction(self, step: int, source: Tensor) -> Tensor:
        """The clean clip as the source branch predicts it, [B, C, F, H, W]."""
        branches, clips = self._branches, self._branches.clips
        timestep = branches.sampler.timestep(step)
        [velocity] = branches.forward([source], [clips.source_prompt], timestep, [clips.condition])
        return branches.sampler.denoised(source, velocity, step)

    def _across_seeds(self, denoised: Tensor) -> Tensor:
        """The variance over a scene's variants, the same for each of them: [B]."""
        by_variant, foreground = (
            x.unflatten(0, (self._variants, -1))
            for x in (denoised, self._branches.clips.foreground)
        )
        return across_seeds(by_variant, foreground[0]).repeat(self._variants)


def _is_whole(path: Path) -> bool:
    """Whether a batch is there; of a damaged one, that it is made again."""
    try:
        if path.exists():
            read_json(path, list[_Watching], "it is made again")
            return True
    except RecordError as error:
        print(error, file=sys.stderr)
    return False


def _trace(trace: tuple[StepRecord, ...]) -> dict[str, list[float | None]]:
    return {name: [getattr(record, name) for record in trace] for name in TRACED}


def _same_run(out: Path, record: dict[str, Any]) -> None:
    """Refuse to mix runs of different settings in one folder."""
    make_inside(out, out / "batches")
    path = out / "run.json"
    if path.exists():
        before = read_json(path, _Run, "give another folder")
        changed = [k for k in SAME if json.dumps(before[k]) != json.dumps(record[k])]
        if changed:
            expected = "give another folder"
            raise ValueError(f"--out {out} holds a run with other {', '.join(changed)}; {expected}")
    write_json(path, record)
