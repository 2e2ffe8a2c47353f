"""`kvlock calibrate`: what the variance of ordinary edits is at each noise level, once per model."""

import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from kvlock.backbones.calibration import calibration_path, write_calibration
from kvlock.backbones.loading import load_backbone, weights_digest
from kvlock.bench.modes import nearest_mode, wanted_mode
from kvlock.bench.runner import Subject, batches_of, edit_subjects, load_subject
from kvlock.bench.suite import Suite
from kvlock.core.calibrated import path_variance
from kvlock.core.config import KVLockConfig
from kvlock.core.types import EditResult
from kvlock.editing import default_config
from kvlock.methods.table import CALIBRATED, METHODS
from kvlock.shapes.scene import random_edit
from kvlock.versions import versions

FEWEST = 5


def calibrate(model: str, suite: Suite, steps: int, device: str = "auto", dtype: str = "auto") -> tuple[Path, int]:
    """Edit every clip by plain sampling, anchored where the model needs it; store the median variance at each step.

    It is the one that the calibrated methods take: of the conditional prediction, over their window, per variance of
    the noise levels there. Only good edits count: of the built-in world's scenes those with the wanted mode, of other
    clips all. Returns where it was stored, and of how many edits. Raises ValueError for fewer than 5 of them, or fewer
    steps than give a variance.
    """
    watched = {name: METHODS[CALIBRATED[0]][name] for name in ("signal", "window")}
    config = default_config(model, "plain", num_inference_steps=steps, background_anchor="auto", **watched)
    assert isinstance(config, KVLockConfig)
    if steps < 3 or len(suite.items) < FEWEST:
        raise ValueError(f"calibration takes 3 steps or more and {FEWEST} clips or more")
    place = calibration_path(model).parent
    place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        raise ValueError(f"{place}, where the calibration is kept, cannot be written to")
    backbone = load_backbone(model, device, dtype)
    traces = []
    for batch in track(batches_of(suite.items), "calibrate", console=Console(stderr=True)):
        subjects = [load_subject(suite, item, 0) for item in batch]
        results = edit_subjects(backbone, model, config, subjects)
        traces += [r.trace for s, r in zip(subjects, results) if _is_good(s, r)]
    if len(traces) < FEWEST:
        raise ValueError(f"only {len(traces)} of {len(suite.items)} edits are right; expected {FEWEST} or more")
    sigmas = [record.sigma for record in traces[0]]
    usual = [
        (
            sigmas[step],
            float(np.median([t[step].variance for t in traces]))
            / path_variance(sigmas[max(0, step - config.window_steps) : step]),
        )
        for step in range(2, steps)
    ]
    record = {
        "model": model,
        "weights": weights_digest(model),
        "suite": suite.name,
        "clips": len(traces),
        "num_inference_steps": steps,
        "guidance_scale": config.guidance_scale,
        "usual": usual,
        "versions": versions(),
    }
    return write_calibration(model, record | watched), len(traces)


def _is_good(subject: Subject, result: EditResult) -> bool:
    scene = subject.item.scene
    return scene is None or nearest_mode(result.video.numpy(), scene).mode == wanted_mode(random_edit(scene))
