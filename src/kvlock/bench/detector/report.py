"""What the study's edits say: how well every signal separates, at every step; where the schedules
stood.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from kvlock.bench.detector.edits import (
    FEEDBACK,
    TRACED,
    Curves,
    Edits,
    columns,
    signal_after,
    signal_curves,
    traces,
)
from kvlock.bench.detector.plots import plot_feedback, plot_roc, plot_signals
from kvlock.bench.detector.statistics import auc_interval, within_scenes
from kvlock.core.config import KVLockConfig
from kvlock.media.files import write_json, write_text

HEADER = ["edits", "signal", "after_step", "auc", "low", "high", "rank_correlation"]


def write_report(out: Path, edits: Edits, config: KVLockConfig) -> str:
    """Write the table, `detector.csv`, `detector.json` and the plots under `out`; returns the
    table.

    Edits that leave an object stand apart: among those of all kinds, a signal may say no more than
    the kind of edit.
    """
    last = config.num_inference_steps - 1
    steps = (config.first_lock_step, (config.first_lock_step + last) // 2, last)
    leaving = [e for e in edits if e["leaves_object"]]
    groups = {"edits that leave an object": leaving, "all edits": edits}
    groups = {title: group for title, group in groups.items() if group}
    curves = {title: signal_curves(group) for title, group in groups.items()}
    parts, lines = [], [HEADER]
    for title, group in groups.items():
        table, own = _signal_table(title, group, curves[title], steps)
        parts += [table, _within_table(group, steps)]
        lines += own
    text = "\n".join([*parts, _feedback_table(edits, config)])
    write_text(out / "detector.csv", _csv(lines))
    write_json(
        out / "detector.json", {t: {"n": len(groups[t]), "curves": c} for t, c in curves.items()}
    )
    write_text(out / "detector.md", text)
    shown = next(iter(curves))
    plot_signals(out / "signals.png", curves[shown], config)
    plot_roc(out / "roc.png", groups[shown], steps[1])
    plot_feedback(out / "feedback.png", edits, config)
    return text


def _signal_table(
    title: str, edits: Edits, curves: Curves, steps: tuple[int, ...]
) -> tuple[str, list[list[Any]]]:
    """Markdown, and the same as lines for the CSV."""
    wrong, _, scenes = columns(edits)
    counts = f"{len(edits)} {title}, of {len(set(scenes))} scenes"
    counts += f", {int(wrong.sum())} of them wrong ({wrong.mean():.1%})\n"
    heads = [f"AUC [95 % interval], rank correlation after step {s + 1}" for s in steps]
    body, lines = [], []
    for name, curve in curves.items():
        cells = [name]
        for s in steps:
            low, high = auc_interval(signal_after(edits, name, s), wrong, scenes)
            numbers = curve["auc"][s], low, high, curve["correlation"][s]
            cells.append("{:.2f} [{:.2f}, {:.2f}], {:+.2f}".format(*numbers))
            lines.append([title, name, s + 1, *(f"{x:.4f}" for x in numbers)])
        body.append(cells)
    return f"{counts}\n{_grid(['signal', *heads], body)}", lines


def _within_table(edits: Edits, steps: tuple[int, ...]) -> str:
    """Markdown: how well each signal separates the variants of the same edit."""
    wrong, error, scenes = columns(edits)
    counts = [(wrong[scenes == s].sum(), (scenes == s).sum()) for s in np.unique(scenes)]
    mixed = sum(0 < found < among for found, among in counts)
    title = "The same edits, each scene's variants among themselves; "
    title += f"the AUC is of {mixed} scenes with both kinds\n"
    heads = [f"AUC, rank correlation after step {s + 1}" for s in steps]
    body = []
    for name in edits[0]["signals"]:
        values = [signal_after(edits, name, s) for s in steps]
        found = [within_scenes(v, wrong, error, scenes) for v in values]
        cells = ["-" if np.isnan(a) or np.isnan(r) else f"{a:.2f}, {r:+.2f}" for a, r in found]
        body.append([name, *cells])
    return f"{title}\n{_grid(['signal', *heads], body)}"


def _feedback_table(edits: Edits, config: KVLockConfig) -> str:
    """Markdown: where alpha and omega stood in the lock steps, over all edits and steps."""
    omega_0, adaptive = config.guidance.guidance_scale, config.guidance.adaptive
    assert adaptive
    most = adaptive.guidance_boost * omega_0
    rest = omega_0 * (1 + 1e-5)  # the trace is float32
    body = []
    for method in FEEDBACK:
        locked = (traces(edits, method, n)[:, config.first_lock_step :] for n in TRACED)
        variance, alpha, omega = locked
        medians = f"{np.median(variance[:, 0]):.4f}, {np.median(variance[:, -1]):.4f}"
        shares = alpha >= 1, alpha < 0.1, omega >= most * (1 - 1e-5), omega <= rest
        body.append([method, medians, *(f"{share.mean():.0%}" for share in shares)])
    header = [
        "method",
        "median variance, first and last lock step",
        "alpha at 1",
        "alpha below 0.1",
    ]
    return _grid([*header, "omega at its upper clamp", "omega at rest or below"], body)


def _grid(header: list[str], body: list[list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in body)]) + "\n"


def _csv(lines: list[list[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(lines)
    return file.getvalue()
