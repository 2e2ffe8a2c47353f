"""Scenes as files."""

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from kvlock.core.types import EditRequest
from kvlock.media.pictures import contact_sheet
from kvlock.media.video import Clip, write_video
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import FRAMES, SIZE, SceneEdit, random_edit

RATE = Fraction(8)
SEED_STRIDE = 1_000_003  # between the noises of one scene's variants


def scene_request(seed: int, noise: int | None = None) -> EditRequest:
    """The scene edit as what is asked of a method; its noise is the scene's own seed's without `noise`."""
    edit = random_edit(seed)
    source = torch.from_numpy(render_scene(edit.source, FRAMES, SIZE, SIZE))
    mask = torch.from_numpy(render_mask(edit, FRAMES, SIZE, SIZE))
    return EditRequest(source, mask, edit.prompt, edit.source_prompt, seed=seed if noise is None else noise)


def write_scene(seed: int, out: Path) -> SceneEdit:
    """The scene's `source.mp4`, `mask.mp4` and `truth.mp4` under `out`; returns the edit."""
    edit = random_edit(seed)
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in scene_clips(seed).items():
        write_video(out / f"{name}.mp4", frames, scene_timing(frames), lossless=True)
    return edit


def render_scenes(seeds: range, out: Path) -> None:
    """One folder a scene, a sheet of all, and `scenes.json` with every record and prompt."""
    if not len(seeds):
        raise ValueError("there is no scene to render; expected --num 1 or more")
    rows, records = {}, []
    for seed in seeds:
        write_scene(seed, out / f"{seed:05d}")
        edit, clips = random_edit(seed), scene_clips(seed)
        rows[f"{seed}: {edit.kind}: {edit.source_prompt} -> {edit.prompt}"] = np.concatenate(list(clips.values()), 2)
        records.append({"seed": seed, "source_prompt": edit.source_prompt, "prompt": edit.prompt, **asdict(edit)})
    contact_sheet(rows).save(out / "sheet.png")
    (out / "scenes.json").write_text(json.dumps(records, indent=1))


def scene_clips(seed: int) -> dict[str, np.ndarray]:
    """Source, mask (white on black) and truth, uint8 [F, H, W, 3] each."""
    edit = random_edit(seed)
    mask = render_mask(edit, FRAMES, SIZE, SIZE)
    return {
        "source": render_scene(edit.source, FRAMES, SIZE, SIZE),
        "mask": np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1),
        "truth": render_scene(edit.target, FRAMES, SIZE, SIZE),
    }


def scene_timing(frames: np.ndarray) -> Clip:
    """A scene's frames as a clip at 8 frames a second, without a file."""
    return Clip(frames, RATE, tuple(range(len(frames))), 1 / RATE, Path())
