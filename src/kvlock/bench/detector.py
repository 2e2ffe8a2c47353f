"""`kvlock bench detector`: does the paper's variance tell hallucinated edits from good ones, and do its rivals?"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from kvlock.backbones.loading import load_backbone, weights_digest
from kvlock.bench.detector_report import FEEDBACK, write_report
from kvlock.bench.jobs import chosen_fields
from kvlock.bench.modes import NOTHING, nearest_mode, wanted_mode
from kvlock.bench.scenes import SEED_STRIDE, scene_clips, scene_request
from kvlock.bench.signals import History, across_seeds, signals
from kvlock.core.clips import prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import edit_clips
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest, StepRecord, StepTensors
from kvlock.editing import default_config
from kvlock.shapes.scene import random_edit
from kvlock.versions import versions

SCENES_TOGETHER = 2


def run_detector(
    out: Path, model: str, scenes: range, variants: int, overrides: dict[str, Any], device: str = "auto"
) -> str:
    """Edit every scene in several variants by plain sampling, watch every signal, and say what it tells.

    `overrides` are fields of every config, plain sampling's and the watched schedules'.

    Batches that are there are kept, so that a stopped run goes on. Returns the table; writes it beside the plots,
    `detector.csv` and `detector.json`. Raises ValueError for fewer than two variants or no scenes.
    """
    if variants < 2 or overrides.get("num_inference_steps", 2) < 2 or not len(scenes):
        raise ValueError("expected 1 scene or more, 2 variants or more, and 2 steps or more")
    configs: dict[str, Any] = {m: default_config(model, m, **overrides) for m in ("plain", *FEEDBACK)}
    backbone = load_backbone(model, device)
    record = {
        "model": model,
        "weights": weights_digest(model),
        "variants": variants,
        "configs": {m: chosen_fields(c) for m, c in configs.items()},
    }
    _same_run(out, record | {"versions": versions(), "device": str(backbone.device)})
    groups = [scenes[i : i + SCENES_TOGETHER] for i in range(0, len(scenes), SCENES_TOGETHER)]
    for group in track(groups, "detector", console=Console(stderr=True)):
        path = out / "batches" / f"{group.start:06d}-{group.stop:06d}.json"
        if not path.exists():
            _write(path, _watch(backbone, group, variants, configs))
    edits = [
        edit for g in groups for edit in json.loads((out / "batches" / f"{g.start:06d}-{g.stop:06d}.json").read_text())
    ]
    return write_report(out, edits, configs["kv-lock"])


def _watch(backbone: Backbone, scenes: range, variants: int, configs: dict[str, Any]) -> list[dict[str, Any]]:
    """All variants of a few scenes in one batch: what each edit became, and its signals after each step."""
    pairs = [(scene, variant) for variant in range(variants) for scene in scenes]
    requests = [scene_request(scene, noise=scene + SEED_STRIDE * variant) for scene, variant in pairs]
    watcher = _Watcher(backbone, requests, variants, configs["plain"])
    results = edit_clips(backbone, requests, configs["plain"], observe=watcher)
    feedback = {m: edit_clips(backbone, requests[: len(scenes)], configs[m]) for m in FEEDBACK}
    edits = []
    for i, ((scene, variant), result) in enumerate(zip(pairs, results)):
        clip = result.video.numpy()
        found = nearest_mode(clip, scene)
        truth, inside = scene_clips(scene)["truth"].astype(np.float64), requests[i].mask.numpy()
        edit = {
            "scene": scene,
            "variant": variant,
            "wrong": found.mode != wanted_mode(random_edit(scene)),
            "mode_distance": found.distance,
            "error": float(((clip - truth)[inside] ** 2).mean()),
            "leaves_object": wanted_mode(random_edit(scene)) != NOTHING,
            "signals": {name: [s[i] for s in values] for name, values in watcher.seen.items()},
        }
        if variant == 0:
            edit["traces"] = {m: _trace(feedback[m][i].trace) for m in FEEDBACK}
        edits.append(edit)
    return edits


class _Watcher:
    """Every signal after each step of one batch; runs the source branch beside the edit."""

    def __init__(self, backbone: Backbone, requests: list[EditRequest], variants: int, config: KVLockConfig):
        self.seen: dict[str, list[list[float | None]]] = {}
        self._backbone, self._variants = backbone, variants
        self._clips = prepare_clips(backbone, requests)
        self._prompt = backbone.encode_prompt([r.source_prompt for r in requests])
        self._sampler = backbone.sampler(config.num_inference_steps, multistep=True)
        self._history = History()

    def __call__(self, view: StepTensors) -> None:
        clips, sampler = self._clips, self._sampler
        noised = sampler.add_noise(clips.source, clips.noise, view.step)
        times = sampler.timestep(view.step).to(noised.device).expand(len(noised))
        velocity = self._backbone.predict(noised, times, self._prompt, clips.condition)
        source = sampler.denoised(noised, velocity, view.step)
        self._history = self._history.after(view.denoised, view.branches[0], source)
        found = signals(self._history, view.branches[-1], clips.source, clips.foreground)
        by_variant = view.denoised.unflatten(0, (self._variants, -1))
        spread = across_seeds(by_variant, clips.foreground.unflatten(0, (self._variants, -1))[0])
        found["variance across seeds"] = spread.repeat(self._variants)
        for name, values in found.items():
            numbers: list[float | None] = [None] * len(noised) if values is None else values.tolist()
            self.seen.setdefault(name, []).append(numbers)


def _trace(trace: tuple[StepRecord, ...]) -> dict[str, list[float | None]]:
    return {n: [getattr(r, n) for r in trace] for n in ("variance", "fusion_ratio", "guidance_scale")}


def _same_run(out: Path, record: dict[str, Any]) -> None:
    """Refuse to mix runs of different settings in one folder."""
    (out / "batches").mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    if path.exists():
        before = json.loads(path.read_text())
        changed = [
            k for k in ("model", "weights", "variants", "configs") if json.dumps(before[k]) != json.dumps(record[k])
        ]
        if changed:
            raise ValueError(f"--out {out} holds a run with other {', '.join(changed)}; give another folder")
    _write(path, record)


def _write(path: Path, record: Any) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(record))
    os.replace(unfinished, path)
