"""`tradeoff.png`: what each method keeps of the background against how near its edit is to the truth."""

from pathlib import Path
from typing import Any

from kvlock.bench.runner import CEILING
from kvlock.bench.table import Row, mean_of
from kvlock.methods.table import COMPOSITE

REACH = 6.0  # dB below the best background that the picture shows; what lies beyond is named under it


def plot_tradeoff(rows: list[Row], path: Path) -> bool:
    """One panel a model: background PSNR, PSNR inside to the truth, and as colour the share of right edits.

    Without the composites, which move every method to the right alike. Returns False, and draws nothing, where no
    truth is known.
    """
    from matplotlib.figure import Figure

    shown = [r for r in rows if "right_edit" in r.values and CEILING not in r.method and COMPOSITE not in r.method]
    models = list(dict.fromkeys(r.model for r in shown))
    if not models:
        return False
    figure = Figure(figsize=(8 * len(models), 7), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models):
        points = _panel(axes, model, [r for r in shown if r.model == model])
        figure.colorbar(points, ax=axes, label="right edits")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def _panel(axes: Any, model: str, rows: list[Row]) -> Any:
    names = ("psnr_background", "psnr_inside", "right_edit")
    found = {r.method: [mean_of(r.values[name]) for name in names] for r in rows}
    best = max(background for background, _, _ in found.values())
    near = {method: values for method, values in found.items() if values[0] > best - REACH}
    far = [f"{method} {values[0]:.1f}" for method, values in found.items() if method not in near]
    background, inside, right = zip(*near.values())
    points = axes.scatter(background, inside, c=right, cmap="viridis", s=45, edgecolors="black")
    for method, (x, y, _) in near.items():
        axes.annotate(method, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_title(model)
    axes.set_xlabel("PSNR background, dB" + (f"\nfarther left: {', '.join(far)}" if far else ""))
    axes.set_ylabel("PSNR inside to truth, dB")
    axes.grid(alpha=0.3)
    return points
