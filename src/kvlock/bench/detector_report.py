"""What the detector's edits say: AUC and rank correlation of every signal at every step; where the schedules stood."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, rankdata, spearmanr

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


def within_scenes(values: np.ndarray, wrong: np.ndarray, error: np.ndarray, scenes: np.ndarray) -> tuple[float, float]:
    """AUC and rank correlation among variants of the same edit, so that contrast and difficulty stand still.

    The AUC is the mean over scenes that have both right and wrong edits; the correlation is that of the ranks within
    each scene, over all. NaN where there is nothing to compare.
    """
    areas, ranks = [], []
    for scene in np.unique(scenes):
        own = scenes == scene
        areas.append(auc(values[own], wrong[own]))
        ranks.append([rankdata(values[own]), rankdata(error[own])])
    pairs = np.concatenate([r - np.mean(r, axis=1, keepdims=True) for r in ranks], axis=1)
    spread = np.sqrt((pairs**2).sum(axis=1).prod())
    mixed = [a for a in areas if not np.isnan(a)]
    return (
        float(np.mean(mixed)) if mixed else float("nan"),
        float(pairs.prod(axis=0).sum() / spread) if spread else float("nan"),
    )


def write_report(out: Path, edits: Edits, config: KVLockConfig) -> str:
    """Write the table, `detector.csv`, `detector.json` and the plots under `out`; returns the table.

    Edits that leave an object stand apart: in those of all kinds, a signal may tell no more than the kind of the edit.
    """
    last = config.num_inference_steps - 1
    told = (config.first_lock_step, (config.first_lock_step + last) // 2, last)
    groups = {"edits that leave an object": [e for e in edits if e["leaves_object"]], "all edits": edits}
    parts, rows, curves = [], [], {}
    for title, group in groups.items():
        if group:
            curves[title] = _curves(group)
            table, lines = _signal_table(title, group, curves[title], told)
            parts, rows = [*parts, table, _within_table(group, told)], [*rows, *lines]
    text = "\n".join([*parts, _feedback_table(edits, config)])
    with open(out / "detector.csv", "w", newline="") as file:
        header = ["edits", "signal", "after_step", "auc", "low", "high", "rank_correlation"]
        csv.writer(file).writerows([header, *rows])
    (out / "detector.json").write_text(json.dumps({t: {"n": len(groups[t]), "curves": c} for t, c in curves.items()}))
    (out / "detector.md").write_text(text)
    shown = next(iter(curves))
    _plot_curves(out / "signals.png", curves[shown], config)
    _plot_roc(out / "roc.png", groups[shown], told[1])
    _plot_feedback(out / "feedback.png", edits, config)
    return text


def _columns(edits: Edits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.array([e[name] for e in edits]) for name in ("wrong", "error", "scene"))  # type: ignore[return-value]


def _curves(edits: Edits) -> dict[str, dict[str, list[float]]]:
    """AUC and rank correlation of each signal after each step; NaN where there is no value yet."""
    wrong, error, _ = _columns(edits)
    curves = {}
    for name in edits[0]["signals"]:
        columns = np.array([e["signals"][name] for e in edits], dtype=float).T
        known = [not np.isnan(column).any() for column in columns]
        curves[name] = {
            "auc": [auc(c, wrong) if ok else float("nan") for c, ok in zip(columns, known)],
            "correlation": [rank_correlation(c, error) if ok else float("nan") for c, ok in zip(columns, known)],
        }
    return curves


def _signal_table(
    title: str, edits: Edits, curves: dict[str, dict[str, list[float]]], told: tuple[int, ...]
) -> tuple[str, list[list[Any]]]:
    """Markdown, and the same as rows for the CSV."""
    wrong, _, scenes = _columns(edits)
    counts = (
        f"{len(edits)} {title}, of {len(set(scenes))} scenes, {int(wrong.sum())} of them wrong ({wrong.mean():.1%})"
    )
    heads = [f"AUC [95 % interval], rank correlation after step {s + 1}" for s in told]
    lines = [f"{counts}\n", f"| signal | {' | '.join(heads)} |", "|---" * (len(told) + 1) + "|"]
    rows = []
    for name, curve in curves.items():
        cells = []
        for s in told:
            values = np.array([e["signals"][name][s] for e in edits], dtype=float)
            low, high = auc_interval(values, wrong, scenes)
            numbers = curve["auc"][s], low, high, curve["correlation"][s]
            cells.append("{:.2f} [{:.2f}, {:.2f}], {:+.2f}".format(*numbers))
            rows.append([title, name, s + 1, *(f"{x:.4f}" for x in numbers)])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", rows


def _within_table(edits: Edits, told: tuple[int, ...]) -> str:
    """Markdown: what each signal tells between variants of the same edit."""
    wrong, error, scenes = _columns(edits)
    mixed = sum(0 < wrong[scenes == s].sum() < (scenes == s).sum() for s in np.unique(scenes))
    heads = [f"AUC, rank correlation after step {s + 1}" for s in told]
    lines = [f"The same edits, each scene's variants among themselves; the AUC is of {mixed} scenes with both kinds\n"]
    lines += [f"| signal | {' | '.join(heads)} |", "|---" * (len(told) + 1) + "|"]
    for name in edits[0]["signals"]:
        columns = [np.array([e["signals"][name][s] for e in edits], dtype=float) for s in told]
        found = [within_scenes(c, wrong, error, scenes) for c in columns]
        cells = ["-" if np.isnan(area) or np.isnan(r) else f"{area:.2f}, {r:+.2f}" for area, r in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _feedback_table(edits: Edits, config: KVLockConfig) -> str:
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
        rest = config.guidance_scale * (1 + 1e-5)  # the trace is float32
        shares = [
            (alpha >= 1).mean(),
            (alpha < 0.1).mean(),
            (omega >= most * (1 - 1e-5)).mean(),
            (omega <= rest).mean(),
        ]
        percents = " | ".join(f"{x:.0%}" for x in shares)
        lines.append(f"| {method} | {medians[0]:.4f}, {medians[1]:.4f} | {percents} |")
    return "\n".join(lines) + "\n"


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


def _plot_roc(path: Path, edits: Edits, step: int) -> None:
    from matplotlib.figure import Figure

    wrong, _, _ = _columns(edits)
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
