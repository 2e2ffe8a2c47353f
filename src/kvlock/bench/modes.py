"""Which object stands inside the mask: every kind in every colour, and nothing, rendered at the known place."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import COLOURS, FRAMES, KINDS, SIZE, Scene, SceneEdit, random_edit

NOTHING = ("nothing", "nothing")
Mode = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """The mode nearest to a clip. `distance` is its mean squared error inside the mask, in squared grey levels.

    `consistency` is the share of the frames whose own nearest mode is the clip's.
    """

    mode: Mode
    distance: float
    consistency: float


def wanted_mode(edit: SceneEdit) -> Mode:
    """(kind, colour) that a true edit shows inside the mask."""
    subject = edit.target.shapes[0] if edit.kind != "remove" else None
    return (subject.kind, subject.colour) if subject else NOTHING


def nearest_mode(clip: np.ndarray, seed: int) -> Found:
    """The mode that a clip, uint8 [F, H, W, 3], shows inside the mask of the scene edit `seed`."""
    modes, answers, frames = _answers(seed)
    inside = clip[render_mask(random_edit(seed), FRAMES, SIZE, SIZE)].astype(np.float32)
    errors = ((answers - inside) ** 2).mean(axis=2)  # [modes, pixels]
    by_frame = np.stack([np.bincount(frames, weights=e, minlength=FRAMES) for e in errors])
    seen = np.bincount(frames, minlength=FRAMES) > 0
    best = int(errors.mean(axis=1).argmin())
    consistency = float((by_frame.argmin(axis=0) == best)[seen].mean())
    return Found(modes[best], float(errors[best].mean()), consistency)


@lru_cache(maxsize=256)
def _answers(seed: int) -> tuple[tuple[Mode, ...], np.ndarray, np.ndarray]:
    """Every mode, its pixels inside the mask [modes, pixels, 3], and each pixel's frame."""
    edit = random_edit(seed)
    mask = render_mask(edit, FRAMES, SIZE, SIZE)
    rest = edit.target.shapes if edit.kind == "remove" else edit.target.shapes[1:]
    scenes: dict[Mode, Scene] = {NOTHING: replace(edit.target, shapes=rest)}
    for kind in KINDS:
        for colour in COLOURS:
            subject = replace(edit.disc, kind=kind, colour=colour)
            scenes[kind, colour] = replace(edit.target, shapes=(subject, *rest))
    answers = np.stack([render_scene(s, FRAMES, SIZE, SIZE)[mask] for s in scenes.values()]).astype(np.float32)
    return tuple(scenes), answers, np.nonzero(mask)[0]
