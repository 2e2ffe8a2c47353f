"""The study's pictures: every signal over the steps, ROC curves, and the traces under the watched
schedules.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kvlock.bench.detector.edits import FEEDBACK, Curves, Edits, columns, signal_after, traces
from kvlock.core.config import KVLockConfig
from kvlock.media.files import whole_file

LABELS = {
    "variance": "variance inside the mask",
    "fusion_ratio": "fusion ratio (alpha)",
    "guidance_scale": "guidance scale (omega)",
}


def plot_signals(path: Path, curves: Curves, config: KVLockConfig) -> None:
    """AUC and rank correlation of every signal over the steps."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    for i, (name, curve) in enumerate(curves.items()):
        top.plot(curve["auc"], label=name, **_style(i))
        bottom.plot(curve["correlation"], label=name, **_style(i))
    panels = (top, "AUC, wrong edit", 0.5), (bottom, "rank correlation with the error", 0)
    for axes, label, nothing in panels:
        axes.axhline(nothing, color="black", linewidth=0.8)
        axes.axvline(config.first_lock_step, color="grey", linestyle=":")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    bottom.set_xlabel("step (dotted: the lock begins)")
    figure.legend(*top.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    _save(figure, path)


def plot_roc(path: Path, edits: Edits, step: int) -> None:
    """For every threshold of a signal after `step`, the shares of wrong and of right edits above
    it.
    """
    wrong, _, _ = columns(edits)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(edits[0]["signals"]):
        order = np.argsort(-signal_after(edits, name, step), kind="stable")
        hits = np.cumsum(wrong[order]) / max(wrong.sum(), 1)
        alarms = np.cumsum(~wrong[order]) / max((~wrong).sum(), 1)
        axes.plot(alarms, hits, label=name, **_style(i))
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set_xlabel(f"right edits above the threshold, after step {step + 1}")
    axes.set_ylabel("wrong edits above it")
    axes.legend(fontsize=7)
    _save(figure, path)


def plot_feedback(path: Path, edits: Edits, config: KVLockConfig) -> None:
    """Variance, alpha and omega of every edit over the steps, a column a watched method."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplots(len(LABELS), len(FEEDBACK), sharex=True, sharey="row")
    for column, method in enumerate(FEEDBACK):
        panels[0, column].set_title(method)
        for line, (name, label) in enumerate(LABELS.items()):
            for values in traces(edits, method, name):
                panels[line, column].plot(values, color="tab:blue", alpha=0.15, linewidth=0.8)
            panels[line, 0].set_ylabel(label)
        panels[0, column].axhline(config.signal.threshold, color="tab:red", linestyle="--")
        panels[0, column].set_yscale("log")
        panels[-1, column].set_xlabel("step")
    _save(figure, path)


def _style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None})
