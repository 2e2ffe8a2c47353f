"""A mask's files: the clip of it, lossless, and what shows where to look again."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvlock.masks.job import MadeMask
from kvlock.masks.morphology import feathered
from kvlock.masks.propagate import TRUSTED
from kvlock.media.files import write_json
from kvlock.media.pictures import contact_sheet, mask_overlay
from kvlock.media.video import write_video

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASK = "mask.mp4"
MOST_NAMED = 12  # runs of frames in a sentence


def write_mask(made: MadeMask, folder: Path) -> list[str]:
    """Write mask.mp4 (lossless, white on black), overlay.mp4, sheet.png, mask.json and mask.png.

    With a feather soft.mp4, too: its edges are grey, which `kvlock edit` would refuse. The folder
    is there, and the caller's to remove on an error. Returns sentences for the user. Raises
    BadVideoError or OSError where something cannot be written.
    """
    clip, feather = replace(made.clip, path=Path()), made.refinements.feather  # silent
    overlay = mask_overlay(clip.frames, made.mask)
    write_video(folder / MASK, _as_grey(feathered(made.mask, 0)), clip, lossless=True)
    if feather:
        soft = _as_grey(feathered(made.mask, feather))
        write_video(folder / "soft.mp4", soft, clip, lossless=True)
    write_video(folder / "overlay.mp4", overlay, clip)
    sheet = contact_sheet({"source": clip.frames, "mask": overlay, **_doubtful(made, overlay)})
    sheet.save(folder / "sheet.png")
    write_json(folder / "mask.json", record(made))
    mask_figure(made).savefig(folder / "mask.png", dpi=110, metadata={"Software": None})
    return summary(made)


def look_again(made: MadeMask) -> list[int]:
    """The frames whose confidence is low."""
    return [t for t, sure in enumerate(made.confidence.tolist()) if sure < TRUSTED]


def record(made: MadeMask) -> dict[str, Any]:
    """As JSON has it: area is the mask's share of the picture, confidence from 0 to 1."""
    areas = made.mask.flatten(1).float().mean(1).tolist()
    rows = zip(areas, made.confidence.tolist())
    return {
        "keyed": list(made.keys),
        "look_again": look_again(made),
        "refinements": asdict(made.refinements),
        "frames": [
            {"frame": t, "area": round(area, 6), "confidence": round(sure, 4)}
            for t, (area, sure) in enumerate(rows)
        ],
    }


def summary(made: MadeMask) -> list[str]:
    """Sentences: how much is marked, and the frames that want another look."""
    share = made.mask.float().mean()
    said = [f"mask: {len(made.mask)} frames, {share:.1%} of the picture on average"]
    doubtful = look_again(made)
    if doubtful:
        said.append(
            f"look at {_runs(doubtful)}: the mask may be wrong there; give one of them a mask of "
            "its own (--frame, --box, --point)"
        )
    empty = [t for t, frame in enumerate(made.mask) if not frame.any()]
    if empty:
        said.append(f"nothing is marked in {_runs(empty)}")
    return said


def mask_figure(made: MadeMask) -> "Figure":
    """Area and confidence over the frames; keyed frames are dotted, doubtful ones shaded."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = record(made)["frames"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    for axes, name in zip(figure.subplots(2, sharex=True), ("area", "confidence")):
        axes.plot([r["frame"] for r in rows], [r[name] for r in rows], marker=".")
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0, top=1.05 if name == "confidence" else None)
        axes.grid(alpha=0.3)
        for key in made.keys:
            axes.axvline(key, color="tab:grey", linestyle=":")
        for t in look_again(made):
            axes.axvspan(t - 0.5, t + 0.5, color="tab:orange", alpha=0.2, linewidth=0)
    figure.axes[1].axhline(TRUSTED, color="tab:red", linestyle="--")
    figure.axes[1].set_xlabel("frame (dotted: keyed; shaded: look again)")
    figure.axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _as_grey(levels: Tensor) -> Tensor:
    """uint8 [F, H, W] as [F, H, W, 3]."""
    return levels[..., None].expand(-1, -1, -1, 3).contiguous()


def _doubtful(made: MadeMask, overlay: Tensor) -> dict[str, Tensor]:
    """A row of the sheet with frames that want another look, repeated to the clip's length."""
    doubtful = torch.tensor(look_again(made))
    if not len(doubtful):
        return {}
    spread = torch.linspace(0, len(doubtful) - 1, len(overlay)).round().long()
    return {f"look again: {_runs(doubtful.tolist())}": overlay[doubtful[spread]]}


def _runs(frames: list[int]) -> str:
    """Frame numbers in words: frame 3, frames 3 to 7 and 12."""
    starts = [t for t in frames if t - 1 not in frames]
    ends = [t for t in frames if t + 1 not in frames]
    named = [f"{a} to {b}" if b > a else f"{a}" for a, b in zip(starts, ends)]
    more = [f"{len(named) - MOST_NAMED} more runs"] if len(named) > MOST_NAMED else []
    named = named[:MOST_NAMED] + more
    word = "frame" if len(frames) == 1 else "frames"
    return f"{word} {' and '.join([', '.join(named[:-1]), named[-1]] if named[:-1] else named)}"
