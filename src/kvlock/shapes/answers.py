"""Which object a clip shows inside the mask: nothing, or a kind in a colour, each rendered there
and compared.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import shift
from torch import Tensor

from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import COLOURS, FRAMES, KINDS, SIZE, Scene, SceneEdit, random_edit

NOTHING = ("nothing", "nothing")
PALETTE_DISTANCE = 45.0  # grey levels between a pixel and the palette's colour that it counts for
Mode = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """The mode nearest to a clip.

    `distance` is its mean squared error inside the mask, in squared grey levels. `consistency` is
    the share of the frames whose own nearest mode is the clip's, 0 to 1.
    """

    mode: Mode
    distance: float
    consistency: float


def wanted_mode(edit: SceneEdit) -> Mode:
    """(kind, colour) that a true edit shows inside the mask."""
    subject = edit.target.shapes[0] if edit.kind != "remove" else None
    return (subject.kind, subject.colour) if subject else NOTHING


def nearest_mode(clip: Tensor, seed: int) -> Found:
    """The mode that a clip, uint8 [F, H, W, 3], shows inside the mask of the scene edit `seed`."""
    modes, answers, frames = _answers(seed)
    mask = render_mask(random_edit(seed), FRAMES, SIZE, SIZE)
    inside = clip.numpy()[mask].astype(np.float32)
    errors = ((answers - inside) ** 2).mean(axis=2)  # [modes, pixels]
    by_frame = np.stack([np.bincount(frames, weights=e, minlength=FRAMES) for e in errors])
    seen = np.bincount(frames, minlength=FRAMES) > 0
    best = int(errors.mean(axis=1).argmin())
    consistency = float((by_frame.argmin(axis=0) == best)[seen].mean())
    return Found(modes[best], float(errors[best].mean()), consistency)


def is_right(clip: Tensor, seed: int) -> bool:
    """Whether a clip, uint8 [F, H, W, 3], shows what the scene edit `seed` asks for."""
    return nearest_mode(clip, seed).mode == wanted_mode(random_edit(seed))


def outline_change(clip: Tensor, seed: int) -> float | None:
    """How much the outline of a clip's object changes between frames, over what a true one's does.

    1 is as steady as the truth. The clip, uint8 [F, H, W, 3], is an edit of the scene `seed`. Its
    object is the pixels inside the mask that are nearer to the object's colour than to the
    background's: hard pixels, so that only their border moves. Each frame is moved back along the
    known path, and the differences between neighbours are summed. A true object's are not 0, since
    pixels are squares; the true one is the mode nearest to the clip, so that a wrong object may be
    steady. None where the clip shows nothing, or the true object stands still.
    """
    edit, (modes, answers, _) = random_edit(seed), _answers(seed)
    mode = nearest_mode(clip, seed).mode
    if mode == NOTHING:
        return None
    mask = render_mask(edit, FRAMES, SIZE, SIZE)
    colour, background = np.float32(COLOURS[mode[1]]), answers[modes.index(NOTHING)]

    def changes(pixels: np.ndarray) -> float:
        own, other = (((pixels - rgb) ** 2).sum(axis=1) for rgb in (colour, background))
        shape = np.zeros(mask.shape)
        shape[mask] = own < other
        centres = [edit.disc.centre(t) for t in np.linspace(0, 1, FRAMES)]
        back = [((0.5 - y) * SIZE, (0.5 - x) * SIZE) for x, y in centres]
        laid = np.stack([shift(frame, by, order=1) for frame, by in zip(shape, back)])
        return float(np.abs(np.diff(laid, axis=0)).sum())

    drawn, true = (changes(pixels) for pixels in (clip.numpy()[mask], answers[modes.index(mode)]))
    return drawn / true if true else None


def dominant_colour(clip: Tensor) -> str | None:
    """The palette's colour that most pixels of a clip, uint8 [F, H, W, 3], are near to; None where
    none is.

    For clips that may show their object anywhere.
    """
    pixels = clip.numpy().reshape(-1, 3).astype(np.float32)
    palette = [np.array(rgb, np.float32) for rgb in COLOURS.values()]
    distances = np.stack([np.linalg.norm(pixels - colour, axis=1) for colour in palette])
    nearest = distances.argmin(0)[distances.min(0) < PALETTE_DISTANCE]
    return list(COLOURS)[np.bincount(nearest).argmax()] if len(nearest) else None


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
    pixels = [render_scene(scene, FRAMES, SIZE, SIZE)[mask] for scene in scenes.values()]
    return tuple(scenes), np.stack(pixels).astype(np.float32), np.nonzero(mask)[0]
