"""The edits of a study as columns: one value an edit."""

from typing import Any

import numpy as np

from kvlock.bench.detector.statistics import auc, rank_correlation

FEEDBACK = (
    "kv-lock",
    "omega-only",
    "kv-only",
    "paper-literal",
)  # the methods whose schedules are watched
TRACED = ("variance", "fusion_ratio", "guidance_scale")
Edits = list[dict[str, Any]]
Curves = dict[
    str, dict[str, list[float]]
]  # of a signal: its "auc" and "correlation" after each step


def columns(edits: Edits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each edit is wrong, bool [N]; its error inside the mask, float [N]; its scene, int
    [N].
    """
    wrong, error, scenes = (
        np.array([e[name] for e in edits]) for name in ("wrong", "error", "scene")
    )
    return wrong, error, scenes


def signal_after(edits: Edits, name: str, step: int) -> np.ndarray:
    """A signal after a step, float [N]; NaN where there is no value yet."""
    return np.array([e["signals"][name][step] for e in edits], dtype=float)


def traces(edits: Edits, method: str, name: str) -> np.ndarray:
    """One of TRACED under a watched method, float [edits, steps]."""
    watched = [e["traces"][method][name] for e in edits if "traces" in e]
    return np.array(watched, dtype=float)


def signal_curves(edits: Edits) -> Curves:
    """AUC and rank correlation of each signal after each step; NaN where there is no value yet."""
    wrong, error, _ = columns(edits)
    curves = {}
    for name, values in edits[0]["signals"].items():
        steps = [signal_after(edits, name, step) for step in range(len(values))]
        known = [not np.isnan(values).any() for values in steps]
        curves[name] = {
            "auc": [auc(v, wrong) if ok else float("nan") for v, ok in zip(steps, known)],
            "correlation": [
                rank_correlation(v, error) if ok else float("nan") for v, ok in zip(steps, known)
            ],
        }
    return curves
