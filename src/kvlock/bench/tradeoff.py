"""`tradeoff.png`: what each method keeps of the background, and how near its edit is to the truth."""

from pathlib import Path
from typing import Any

from kvlock.bench.runner import CEILING
from kvlock.bench.table import Row, mean_of
from kvlock.methods.table import COMPOSITE

REACH = 5.0  # dB below the best that a panel shows; what lies beyond stands at its edge as a number
PANELS = {"psnr_background": "PSNR background, dB", "psnr_inside": "PSNR inside to truth, dB"}


def plot_tradeoff(rows: list[Row], path: Path) -> bool:
    """A line a method: background PSNR, PSNR inside to the truth, and as colour the share of right edits.

    Without the composites, which move every method to the right alike. Returns False, and draws nothing, where no
    truth is known.
    """
    from matplotlib.figure import Figure

    shown = [r for r in rows if "right_edit" in r.values and CEILING not in r.method and COMPOSITE not in r.method]
    models = list(dict.fromkeys(r.model for r in shown))
    if not models:
        return False
    most = max(sum(r.model == m for r in shown) for m in models)
    figure = Figure(figsize=(7 * len(models), 1.5 + 0.22 * most), layout="constrained")
    for model, part in zip(models, figure.subfigures(1, len(models), squeeze=False)[0]):
        own = [r for r in shown if r.model == model]
        part.suptitle(model)
        panels = part.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, label) in zip(panels, PANELS.items()):
            points = _panel(axes, own, metric, label)
        part.colorbar(points, ax=panels, label="right edits")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def _panel(axes: Any, rows: list[Row], metric: str, label: str) -> Any:
    values = [mean_of(r.values[metric]) for r in rows]
    edge = max(values) - REACH
    lines = range(len(rows))
    right = [mean_of(r.values["right_edit"]) for r in rows]
    points = axes.scatter([max(v, edge) for v in values], lines, c=right, cmap="viridis", edgecolors="black", zorder=2)
    for line, value in zip(lines, values):
        if value < edge:
            axes.annotate(f"{value:.1f}", (edge, line), xytext=(8, 0), textcoords="offset points", va="center")
    axes.set_yticks(lines, [r.method for r in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    return points
