"""`kvlock calibrate`: how far ordinary edits vary at each noise level, once per model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from kvlock.backbones.calibration import calibration_path
from kvlock.backbones.checkpoints import weights_digest
from kvlock.backbones.loading import load_backbone
from kvlock.bench.jobs import batches_of
from kvlock.bench.subjects import Subject, edit_subjects, load_subject
from kvlock.bench.suite import Suite
from kvlock.contract.types import EditResult, StepRecord
from kvlock.core.config import KVLockConfig
from kvlock.editing.clips import default_config
from kvlock.media.files import write_json
from kvlock.methods.calibrated import path_variance
from kvlock.methods.catalogue import CALIBRATED, own_options
from kvlock.shapes.answers import is_right
from kvlock.versions import versions

FEWEST = 5
# The calibrated methods' own options that say which variance is meant.
WATCHED = ("prediction", "window")
Trace = tuple[StepRecord, ...]


def calibrate(
    model: str, suite: Suite, steps: int, device: str = "auto", dtype: str = "auto"
) -> tuple[Path, int]:
    """Edit every clip by plain sampling, anchored where the model needs it; store the median
    variance at each step.

    It is the one that the calibrated methods take: of the conditional prediction, over their
    window, per variance of the noise levels there. Only good edits count: of the built-in world's
    scenes those with the wanted mode, of other clips all. Returns where it was stored, and of how
    many edits. Raises ValueError for fewer than 5 of them, or fewer steps than give a variance.
    """
    watched = {name: own_options(CALIBRATED[0])[name] for name in WATCHED}
    settings = watched | {"num_inference_steps": steps, "background_anchor": "auto"}
    config = default_config(model, "plain", **settings)
    assert isinstance(config, KVLockConfig)
    if steps < 3 or len(suite.items) < FEWEST:
        raise ValueError(f"calibration takes 3 steps or more and {FEWEST} clips or more")
    _check_writable(calibration_path(model).parent)
    traces = _traces(model, suite, config, device, dtype)
    if len(traces) < FEWEST:
        found = f"only {len(traces)} of {len(suite.items)} edits are right"
        raise ValueError(f"{found}; expected {FEWEST} or more")
    record = {
        "model": model,
        "weights": weights_digest(model),
        "suite": suite.name,
        "clips": len(traces),
        "num_inference_steps": steps,
        "guidance_scale": config.guidance.guidance_scale,
        "usual": _usual(traces, config.window_steps),
        "versions": versions(),
    }
    path = calibration_path(model)
    write_json(path, record | watched)
    return path, len(traces)


def _check_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder}, where the calibration is kept, cannot be written to")


def _traces(model: str, suite: Suite, config: KVLockConfig, device: str, dtype: str) -> list[Trace]:
    """Of the suite's good edits."""
    backbone, traces = load_backbone(model, device, dtype), []
    for batch in track(batches_of(suite.items), "calibrate", console=Console(stderr=True)):
        subjects = [load_subject(suite, item, 0) for item in batch]
        results = edit_subjects(backbone, model, config, subjects)
        traces += [r.trace for s, r in zip(subjects, results) if _is_good(s, r)]
    return traces


def _usual(traces: list[Trace], window: int) -> list[tuple[float, float]]:
    """(noise level, median variance per variance of the window's noise levels) of each step that
    has a variance.
    """
    sigmas = [record.sigma for record in traces[0]]
    usual = []
    for step in range(2, len(sigmas)):
        variances: Any = [trace[step].variance for trace in traces]
        median = float(np.median(variances))
        usual.append((sigmas[step], median / path_variance(sigmas[max(0, step - window) : step])))
    return usual


def _is_good(subject: Subject, result: EditResult) -> bool:
    scene = subject.item.scene
    return scene is None or is_right(result.video, scene)
