"""What the detector's edits say: AUC and rank correlation of every signal at every step; where the schedules stood."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

from kvlock.core.config import KVLockConfig

DRAWS = 1000
FEEDBACK = ("kv-lock", "omega-only", "kv-only", "paper-literal")  # the methods whose schedules are watched
Edits = list[dict[str, Any]]


def auc(values: np.ndarray, wrong: np.ndarray) -> float:
    """The chance that a wrong edit's value is above a right one's; 0.5 tells nothing. NaN without both kinds."""
    if wrong.all() or not wrong.any():
        return float("nan")
    test: Any = mannwhitneyu(values[wrong], values[~wrong])
    return float(test.statistic / (wrong.sum() * (~wrong).sum()))


def auc_interval(values: np.ndarray, wrong: np.ndarray, scenes: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the AUC, drawing scenes with all their variants."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(scenes == s) for s in np.unique(scenes)]
    draws = []
    for _ in range(DRAWS):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append(auc(values[rows], wrong[rows]))
    kept = np.array(draws)[~np.isnan(draws)]
    low, high = np.percentile(kept, [2.5, 97.5]) if len(kept) else (float("nan"),) * 2
    return float(low), float(high)


def rank_correlation(values: np.ndarray, error: np.ndarray) -> float:
    """Spearman's; NaN where one of the two is constant."""
    constant = np.ptp(values) == 0 or np.ptp(error) == 0
    if constant:
        return float("nan")
    test: Any = spearmanr(values, error)
    return float(test.statistic)


def write_report(out: Path, edits: Edits, config: KVLockConfig) -> str:
    """Write the table, `detector.csv`, `detector.json` and the plots under `out`; returns the table."""
    wrong = np.array([e["wrong"] for e in edits])
    error, scenes = np.array([e["error"] for e in edits]), np.array([e["scene"] for e in edits])
    steps = config.num_inference_steps
    curves: dict[str, dict[str, list[float]]] = {}
    for name in edits[0]["signals"]:
        table = np.array([e["signals"][name] for e in edits], dtype=float)
        known = [not np.isnan(column).any() for column in table.T]
        curves[name] = {
            "auc": [auc(c, wrong) if ok else float("nan") for c, ok in zip(table.T, known)],
            "correlation": [rank_correlation(c, error) if ok else float("nan") for c, ok in zip(table.T, known)],
        }
    told = [config.first_lock_step, config.first_lock_step + (steps - config.first_lock_step) // 2, steps - 1]
    lines = [
        f"{len(edits)} edits of {len(set(scenes))} scenes, {int(wrong.sum())} of them wrong ({wrong.mean():.1%})\n"
    ]
    cells = [f"AUC, rank correlation after step {s + 1} of {steps}" for s in told]
    lines += [f"| signal | {' | '.join(cells)} |", "|---" * (len(told) + 1) + "|"]
    rows = []
    for name, curve in curves.items():
        table = np.array([e["signals"][name] for e in edits], dtype=float)
        cells = []
        for s in told:
            low, high = auc_interval(table[:, s], wrong, scenes)
            cells.append(f"{curve['auc'][s]:.2f} [{low:.2f}, {high:.2f}], {curve['correlation'][s]:+.2f}")
            rows.append([name, s + 1, *(f"{x:.4f}" for x in (curve["auc"][s], low, high, curve["correlation"][s]))])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_feedback_lines(edits, config)]
    with open(out / "detector.csv", "w", newline="") as file:
        csv.writer(file).writerows([["signal", "after_step", "auc", "low", "high", "rank_correlation"], *rows])
    (out / "detector.json").write_text(json.dumps({"edits": len(edits), "wrong": int(wrong.sum()), "curves": curves}))
    text = "\n".join(lines) + "\n"
    (out / "detector.md").write_text(text)
    _plot_curves(out / "signals.png", curves, config)
    _plot_roc(out / "roc.png", edits, wrong, told[1])
    _plot_feedback(out / "feedback.png", edits, config)
    return text


def _feedback_lines(edits: Edits, config: KVLockConfig) -> list[str]:
    """Where alpha and omega stood in the lock steps, over all edits and steps."""
    most = config.guidance_boost * config.guidance_scale
    shown = ("median variance, first and last lock step", "alpha at 1", "alpha below 0.1", "omega at its upper clamp")
    header = ("method", *shown, "omega at rest or below")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for method in FEEDBACK:
        traces = [e["traces"][method] for e in edits if "traces" in e]
        variance, alpha, omega = (
            np.array([t[n][config.first_lock_step :] for t in traces], dtype=float)
            for n in ("variance", "fusion_ratio", "guidance_scale")
        )
        medians = np.median(variance[:, 0]), np.median(variance[:, -1])
        shares = [
            (alpha >= 1).mean(),
            (alpha < 0.1).mean(),
            (omega >= most).mean(),
            (omega <= config.guidance_scale).mean(),
        ]
        lines.append(
            f"| {method} | {medians[0]:.4f}, {medians[1]:.4f} | " + " | ".join(f"{x:.0%}" for x in shares) + " |"
        )
    return lines


def _plot_curves(path: Path, curves: dict[str, dict[str, list[float]]], config: KVLockConfig) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    for i, (name, curve) in enumerate(curves.items()):
        style = dict(color=f"C{i % 10}", linestyle="-" if i < 10 else "--", label=name)
        top.plot(curve["auc"], **style)
        bottom.plot(curve["correlation"], **style)
    for axes, label, nothing in ((top, "AUC, wrong edit", 0.5), (bottom, "rank correlation with the error", 0)):
        axes.axhline(nothing, color="black", linewidth=0.8)
        axes.axvline(config.first_lock_step, color="grey", linestyle=":")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    bottom.set_xlabel("step (dotted: the lock begins)")
    figure.legend(*top.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _plot_roc(path: Path, edits: Edits, wrong: np.ndarray, step: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(edits[0]["signals"]):
        values = np.array([e["signals"][name][step] for e in edits], dtype=float)
        order = np.argsort(-values, kind="stable")
        hits, alarms = np.cumsum(wrong[order]) / max(wrong.sum(), 1), np.cumsum(~wrong[order]) / max((~wrong).sum(), 1)
        axes.plot(alarms, hits, color=f"C{i % 10}", linestyle="-" if i < 10 else "--", label=name)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set_xlabel(f"right edits above the threshold, after step {step + 1}")
    axes.set_ylabel("wrong edits above it")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _plot_feedback(path: Path, edits: Edits, config: KVLockConfig) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplots(3, len(FEEDBACK), sharex=True, sharey="row")
    for column, method in enumerate(FEEDBACK):
        panels[0, column].set_title(method)
        for row, name in enumerate(("variance", "fusion_ratio", "guidance_scale")):
            for edit in edits:
                if "traces" in edit:
                    values = np.array(edit["traces"][method][name], dtype=float)
                    panels[row, column].plot(values, color="tab:blue", alpha=0.15, linewidth=0.8)
            panels[row, 0].set_ylabel(name)
        panels[0, column].axhline(config.threshold, color="tab:red", linestyle="--")
        panels[0, column].set_yscale("log")
        panels[2, column].set_xlabel("step")
    figure.savefig(path, dpi=110, metadata={"Software": None})
