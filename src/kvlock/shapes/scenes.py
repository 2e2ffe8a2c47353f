"""Scenes as edits to make: requests, clips, and files."""

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from kvlock.contract.types import EditRequest
from kvlock.media.clip import Clip
from kvlock.media.files import write_json
from kvlock.media.pictures import contact_sheet
from kvlock.media.video import write_video
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import FRAMES, SIZE, Scene, SceneEdit, random_edit

RATE = Fraction(8)
SEED_STRIDE = 1_000_003  # between the noise seeds of one scene's variants


def scene_request(seed: int, noise: int | None = None) -> EditRequest:
    """The edit of the scene `seed`; its noise has the seed `noise`, or where that is None the
    scene's own.
    """
    edit, own = random_edit(seed), seed if noise is None else noise
    source = _rendered(edit.source)
    return EditRequest(source, scene_mask(seed), edit.prompt, edit.source_prompt, seed=own)


def scene_mask(seed: int) -> Tensor:
    """Where the scene's edit may happen: bool [F, H, W]."""
    return torch.from_numpy(render_mask(random_edit(seed), FRAMES, SIZE, SIZE))


def scene_clips(seed: int) -> dict[str, Tensor]:
    """Source, mask (white on black) and truth: uint8 [F, H, W, 3] each."""
    edit, white = random_edit(seed), scene_mask(seed)[..., None].to(torch.uint8) * 255
    mask = white.repeat(1, 1, 1, 3)
    return {"source": _rendered(edit.source), "mask": mask, "truth": _rendered(edit.target)}


def scene_timing(frames: Tensor) -> Clip:
    """A scene's frames, uint8 [F, H, W, 3], as a clip at 8 frames a second, without a file."""
    return Clip(frames, RATE, tuple(range(len(frames))), 1 / RATE, Path())


def write_scene(seed: int, out: Path) -> SceneEdit:
    """The scene's `source.mp4`, `mask.mp4` and `truth.mp4` under `out`; returns the edit."""
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in scene_clips(seed).items():
        write_video(out / f"{name}.mp4", frames, scene_timing(frames), lossless=True)
    return random_edit(seed)


def render_scenes(seeds: range, out: Path) -> None:
    """One folder a scene, a sheet of all, and `scenes.json` with every record and prompt.

    Raises ValueError for no seed.
    """
    if not len(seeds):
        raise ValueError("there is no scene to render; expected --num 1 or more")
    rows, records = {}, []
    for seed in seeds:
        edit, clips = write_scene(seed, out / f"{seed:05d}"), scene_clips(seed)
        title = f"{seed}: {edit.kind}: {edit.source_prompt} -> {edit.prompt}"
        rows[title] = torch.cat(list(clips.values()), dim=2)
        prompts = {"seed": seed, "source_prompt": edit.source_prompt, "prompt": edit.prompt}
        records.append(prompts | asdict(edit))
    contact_sheet(rows).save(out / "sheet.png")
    write_json(out / "scenes.json", records)


def _rendered(scene: Scene) -> Tensor:
    return torch.from_numpy(render_scene(scene, FRAMES, SIZE, SIZE))
