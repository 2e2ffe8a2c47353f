"""The trace of an edit as a picture, its axes in fixed ranges, so that edits can be compared."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvlock.contract.types import StepRecord
from kvlock.media.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIANCE, ALPHA = "variance inside the mask", "alpha: pull toward the source"
OMEGA, SCALE = "omega: guidance", "s*: scale of the unconditional prediction"
MARGIN = 0.05  # of an axis beyond its range


def plot_trace(
    trace: Sequence[StepRecord],
    threshold: float | None,
    path: Path,
    first_lock_step: int | None = None,
    guidance_clamp: float | None = None,
) -> None:
    """Write `trace_figure` as a PNG; the same trace gives the same bytes."""
    figure = trace_figure(trace, threshold, first_lock_step, guidance_clamp)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None})


def trace_figure(
    trace: Sequence[StepRecord],
    threshold: float | None,
    first_lock_step: int | None = None,
    guidance_clamp: float | None = None,
) -> "Figure":
    """The variance, alpha, omega and s* over the steps, each where it is in use.

    `threshold` is drawn into the variance; the steps from `first_lock_step` on are shaded; omega's
    axis goes from 0 to `guidance_clamp`, the highest that the method allows.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels, steps = _panels(trace), [r.step for r in trace]
    figure = Figure(figsize=(7, 2 * len(panels) + 0.5), layout="constrained")
    shown = dict(zip(panels, figure.subplots(len(panels), sharex=True)))
    for name, axes in shown.items():
        axes.plot(steps, panels[name], marker=".", color="tab:blue")
        axes.set_title(name, fontsize=10, loc="left")
        axes.grid(alpha=0.3)
        if first_lock_step is not None and first_lock_step <= steps[-1]:
            label = "lock steps" if axes is figure.axes[0] else None
            last = steps[-1] + 0.5
            axes.axvspan(first_lock_step - 0.5, last, color="tab:orange", alpha=0.12, label=label)
    if VARIANCE in shown:
        _limit_variance(shown[VARIANCE], panels[VARIANCE], threshold)
    _limit(shown[ALPHA], [0.0, 1.0])
    _limit(shown[OMEGA], [0.0, 1.0, guidance_clamp or 0.0, *panels[OMEGA]])
    if guidance_clamp is not None:
        shown[OMEGA].axhline(guidance_clamp, color="tab:grey", linestyle=":", label="upper clamp")
    if SCALE in shown:
        _limit(shown[SCALE], [0.0, 1.0, *panels[SCALE]])
    for axes in figure.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="best")
    figure.axes[-1].set_xlabel("step")
    figure.axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[-1].set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    return figure


def _panels(trace: Sequence[StepRecord]) -> dict[str, list[float]]:
    """The values of each panel, NaN where a step has none; a panel without any is left out."""
    panels = {
        VARIANCE: [r.variance for r in trace],
        ALPHA: [r.fusion_ratio for r in trace],
        OMEGA: [r.guidance_scale for r in trace],
        SCALE: [r.unconditional_scale for r in trace],
    }
    used = {name: values for name, values in panels.items() if any(v is not None for v in values)}
    return {n: [math.nan if v is None else v for v in values] for n, values in used.items()}


def _limit(axes, values: list[float]) -> None:
    """From the least to the greatest of `values`, with a little room on both sides."""
    known = [v for v in values if math.isfinite(v)]
    room = MARGIN * (max(known) - min(known))
    axes.set_ylim(min(known) - room, max(known) + room)


def _limit_variance(axes, values: list[float], threshold: float | None) -> None:
    """Whole powers of ten around the variance and its threshold."""
    axes.set_yscale("log")
    if threshold is not None:
        axes.axhline(threshold, color="tab:red", linestyle="--", label=f"threshold {threshold:g}")
    known = [math.log10(v) for v in [*values, threshold or math.nan] if v > 0 and math.isfinite(v)]
    if known:
        lowest, highest = math.floor(min(known)), math.ceil(max(known))
        axes.set_ylim(10.0**lowest, 10.0 ** max(highest, lowest + 1))
