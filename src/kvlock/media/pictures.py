"""What people would rather look at: a side-by-side clip, a contact sheet, a plot of the trace."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from kvlock.core.types import StepRecord

MIN_HEIGHT = 288
SHEET_COLUMNS = 6
MARGIN = 4


def side_by_side(source: np.ndarray, mask: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """source | mask | edited, uint8 [F, H, 3W, 3]; small clips are enlarged by a whole factor to be seen."""
    shown = np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1)
    factor = max(1, -(-MIN_HEIGHT // source.shape[1]))
    joined = np.concatenate([source, shown, edited], axis=2)
    return joined.repeat(factor, axis=1).repeat(factor, axis=2)


def contact_sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """Named clips, uint8 [F, H, W, 3] of one size, as rows of up to six frames each, under their names."""
    frames, height, width = next(iter(rows.values())).shape[:3]
    picks = np.linspace(0, frames - 1, min(SHEET_COLUMNS, frames)).round().astype(int)
    factor = max(1, 144 // height)
    cell_height, cell_width, title = height * factor, width * factor, 14
    sheet = Image.new(
        "RGB",
        (len(picks) * (cell_width + MARGIN) + MARGIN, len(rows) * (cell_height + title + MARGIN) + MARGIN),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (name, clip) in enumerate(rows.items()):
        top = MARGIN + row * (cell_height + title + MARGIN)
        draw.text((MARGIN, top), name, fill="black")
        for column, pick in enumerate(picks):
            cell = Image.fromarray(clip[pick]).resize((cell_width, cell_height), Image.Resampling.NEAREST)
            sheet.paste(cell, (MARGIN + column * (cell_width + MARGIN), top + title))
    return sheet


def mask_overlay(source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The source with the mask tinted red."""
    return np.where(mask[..., None], source // 2 + np.array([127, 0, 0], np.uint8), source).astype(np.uint8)


def plot_trace(trace: Sequence[StepRecord], threshold: float | None, path: Path) -> None:
    """Variance with its threshold, fusion ratio, guidance scale and, where in use, s* over the steps, as a PNG."""
    from matplotlib.figure import Figure

    steps = [r.step for r in trace]
    panels = {
        "variance inside the mask": [r.variance for r in trace],
        "fusion ratio (alpha)": [r.fusion_ratio for r in trace],
        "guidance scale (omega)": [r.guidance_scale for r in trace],
        "unconditional scale (s*)": [r.unconditional_scale for r in trace],
    }
    if not any(panels["unconditional scale (s*)"]):
        del panels["unconditional scale (s*)"]
    figure = Figure(figsize=(7, 7), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(panels), sharex=True), panels.items()):
        axes.plot(steps, [float("nan") if v is None else v for v in values], marker=".", color="tab:blue")
        axes.set_ylabel(name, fontsize=8)
        axes.grid(alpha=0.3)
        if name.startswith("variance"):
            if threshold is not None:
                axes.axhline(threshold, color="tab:red", linestyle="--", label=f"threshold {threshold:g}")
                axes.legend(fontsize=8)
            axes.set_yscale("log")
    axes.set_xlabel("step")
    figure.savefig(path, dpi=110, metadata={"Software": None})
