"""`tradeoff.png`: how well each method keeps the background, and how near it comes to the truth."""

from pathlib import Path
from typing import Any

from kvlock.bench.jobs import CEILING
from kvlock.bench.rows import Row, mean_of
from kvlock.media.files import whole_file
from kvlock.methods.catalogue import COMPOSITE

REACH = 5.0  # dB below the best that a panel shows; what lies beyond stands at its edge as a number
PANELS = {"psnr_background": "PSNR background, dB", "psnr_inside": "PSNR inside to truth, dB"}


def plot_tradeoff(rows: list[Row], path: Path) -> bool:
    """A line a method: background PSNR, PSNR inside to the truth, and as colour the share of right
    edits.

    Without the composites, which move every method to the right alike. Returns False, and draws
    nothing, where no truth is known.
    """
    from matplotlib.figure import Figure

    scored = [r for r in rows if "right_edit" in r.values]
    shown = [r for r in scored if CEILING not in r.method and COMPOSITE not in r.method]
    models = list(dict.fromkeys(r.model for r in shown))
    if not models:
        return False
    most = max(sum(r.model == m for r in shown) for m in models)
    figure = Figure(figsize=(7 * len(models), 1.5 + 0.22 * most), layout="constrained")
    for model, part in zip(models, figure.subfigures(1, len(models), squeeze=False)[0]):
        own = [r for r in shown if r.model == model]
        part.suptitle(model, parse_math=False)
        panels = part.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, label) in zip(panels, PANELS.items()):
            points = _panel(axes, own, metric, label)
        part.colorbar(points, ax=panels, label="share of right edits")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None})
    return True


def _panel(axes: Any, rows: list[Row], metric: str, label: str) -> Any:
    values = [mean_of(r.values[metric]) for r in rows]
    edge = max(values) - REACH
    lines = range(len(rows))
    right = [mean_of(r.values["right_edit"]) for r in rows]
    inside = [max(v, edge) for v in values]
    points = axes.scatter(inside, lines, c=right, cmap="viridis", edgecolors="black", zorder=2)
    for line, value in zip(lines, values):
        if value < edge:
            offset = dict(xytext=(8, 0), textcoords="offset points", va="center")
            axes.annotate(f"{value:.1f}", (edge, line), **offset)
    axes.set_yticks(lines, [r.method for r in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    return points
