"""The built-in model measured on held-out scenes, where the true edited clip is known to the pixel."""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kvlock.backbones.loading import load_backbone
from kvlock.bench.modes import NOTHING, Mode, nearest_mode, wanted_mode
from kvlock.bench.scenes import scene_request
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest
from kvlock.editing import default_config, edit_clips
from kvlock.media.pictures import contact_sheet
from kvlock.methods.table import MethodConfig
from kvlock.metrics.background import psnr_background, psnr_frame, ssim_background
from kvlock.metrics.foreground import psnr_inside
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import COLOURS, FRAMES, SIZE, random_edit, random_scene

BATCH = 8
PALETTE_DISTANCE = 45.0


@dataclass(frozen=True)
class Score:
    """One edited clip against the truth. `found` is the nearest mode (kind, colour) inside the mask."""

    seed: int
    edit: str
    wanted: Mode
    found: Mode
    psnr_inside: float
    psnr_background: float
    ssim_background: float


def dominant_colour(clip: np.ndarray) -> str | None:
    """The palette colour that most pixels of a clip are near to, for clips whose object's place is not known."""
    pixels = clip.reshape(-1, 3).astype(np.float32)
    distances = np.stack([np.linalg.norm(pixels - np.array(rgb, np.float32), axis=1) for rgb in COLOURS.values()])
    nearest = distances.argmin(0)[distances.min(0) < PALETTE_DISTANCE]
    return list(COLOURS)[np.bincount(nearest).argmax()] if len(nearest) else None


def edit_scenes(backbone: Backbone, seeds: range, config: MethodConfig) -> dict[int, np.ndarray]:
    """The edited clips of held-out scenes, a few at a time."""
    edited = {}
    for first in range(seeds.start, seeds.stop, BATCH):
        group = range(first, min(first + BATCH, seeds.stop))
        requests = [scene_request(seed) for seed in group]
        results = edit_clips(backbone, requests, config)
        edited |= {seed: result.video.numpy() for seed, result in zip(group, results)}
    return edited


def score(seed: int, edited: np.ndarray) -> Score:
    """One edited clip against the true one."""
    edit = random_edit(seed)
    mask = render_mask(edit, FRAMES, SIZE, SIZE)
    source, truth = (render_scene(s, FRAMES, SIZE, SIZE) for s in (edit.source, edit.target))
    return Score(
        seed,
        edit.kind,
        wanted_mode(edit),
        nearest_mode(edited, seed).mode,
        psnr_inside(truth, edited, mask),
        psnr_background(source, edited, mask),
        ssim_background(source, edited, mask),
    )


def summary(scores: list[Score]) -> dict[str, float]:
    """Shares in percent, PSNR in dB, means over the clips.

    Colour and shape count the edits that leave an object, `removed` those that take it away; NaN where there are none.
    """
    objects = [s for s in scores if s.wanted != NOTHING]
    removals = [s for s in scores if s.wanted == NOTHING]
    return {
        "n": len(scores),
        "right colour %": _percent([s.found[1] == s.wanted[1] for s in objects]),
        "right shape %": _percent([s.found[0] == s.wanted[0] for s in objects]),
        "removed %": _percent([s.found == NOTHING for s in removals]),
        "PSNR inside, dB": float(np.mean([s.psnr_inside for s in scores])),
        "PSNR background, dB": float(np.mean([s.psnr_background for s in scores])),
        "SSIM background": float(np.mean([s.ssim_background for s in scores])),
    }


def _percent(hits: list[bool]) -> float:
    return 100 * sum(hits) / len(hits) if hits else float("nan")


@torch.no_grad()
def vae_round_trip(backbone: Backbone, seeds: range) -> dict[int, np.ndarray]:
    """The true edited clips through the VAE and back: what no edit can beat."""
    clips = {}
    for seed in seeds:
        truth = torch.from_numpy(render_scene(random_edit(seed).target, FRAMES, SIZE, SIZE))
        clips[seed] = backbone.decode_video(backbone.encode_video(truth[None]))[0].numpy()
    return clips


def whole_psnr(seed: int, clip: np.ndarray) -> float:
    """PSNR of a clip against the true edited one over whole frames."""
    truth = render_scene(random_edit(seed).target, FRAMES, SIZE, SIZE)
    return psnr_frame(truth, clip)


def text_to_video(backbone: Backbone, seeds: range, steps: int) -> dict[int, tuple[str, np.ndarray]]:
    """Prompts of one coloured shape, sampled freely: colour wanted and clip."""
    config = replace(default_config("shapes-t2v", "plain"), num_inference_steps=steps, background_anchor="none")
    blank = torch.zeros(FRAMES, SIZE, SIZE, 3, dtype=torch.uint8)
    everywhere = torch.ones(FRAMES, SIZE, SIZE, dtype=torch.bool)
    clips = {}
    for first in range(seeds.start, seeds.stop, BATCH):
        group = range(first, min(first + BATCH, seeds.stop))
        scenes = [replace(s, shapes=s.shapes[:1]) for s in map(random_scene, group)]
        requests = [EditRequest(blank, everywhere, s.prompt, seed=seed) for s, seed in zip(scenes, group)]
        results = edit_clips(backbone, requests, config)
        clips |= {
            seed: (scene.shapes[0].colour, result.video.numpy()) for seed, scene, result in zip(group, scenes, results)
        }
    return clips


def evaluate_world(
    out: Path, seeds: range, steps: int, methods: tuple[str, ...], model: str, t2v_model: str
) -> dict[str, dict[str, float]]:
    """Measure, print, and write `evaluation.json` and `sheet.png` under `out`."""
    configs = {m: default_config(model, m, num_inference_steps=steps) for m in methods}
    if not len(seeds):
        raise ValueError("there is no scene to measure; expected --num 1 or more")
    out.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(model)
    ceiling = vae_round_trip(backbone, seeds)
    whole = float(np.mean([whole_psnr(seed, clip) for seed, clip in ceiling.items()]))
    rows = {"VAE round trip": summary([score(seed, clip) for seed, clip in ceiling.items()])}
    _show("VAE round trip", {"PSNR whole, dB": whole, **rows["VAE round trip"]})
    shown, details = {}, {}
    for method, config in configs.items():
        began = time.monotonic()
        shown[method] = edit_scenes(backbone, seeds, config)
        seconds = (time.monotonic() - began) / len(seeds)
        scores = [score(seed, clip) for seed, clip in shown[method].items()]
        rows[method], details[method] = summary(scores), [asdict(s) for s in scores]
        _show(method, {**rows[method], "seconds a clip": seconds})
    texts = text_to_video(load_backbone(t2v_model), seeds, steps)
    right = 100 * float(np.mean([dominant_colour(clip) == colour for colour, clip in texts.values()]))
    _show("text-to-video", {"right colour %": right})
    how = {
        "steps": steps,
        "seeds": [seeds.start, seeds.stop],
        "device": str(backbone.device),
        "torch": torch.__version__,
    }
    how["configs"] = {method: asdict(config) for method, config in configs.items()}
    result = {
        "how": how,
        "VAE PSNR whole, dB": whole,
        "text-to-video right colour %": right,
        "rows": rows,
        "scores": details,
    }
    (out / "evaluation.json").write_text(json.dumps(result, indent=1))
    _sheet(seeds, shown).save(out / "sheet.png")
    return rows


def draw_samples(model: Path, out: Path, step: int, num: int = 6) -> None:
    """A contact sheet of a few plain edits by the model in training that `model` holds."""
    backbone = load_backbone(str(model / "shapes-vace"), max_sequence_length=16)
    seeds = range(num)
    edited = edit_scenes(backbone, seeds, default_config("shapes", "plain", num_inference_steps=12))
    out.mkdir(parents=True, exist_ok=True)
    _sheet(seeds, {"plain": edited}).save(out / f"{step:06d}.png")
    _show(f"step {step}", summary([score(seed, clip) for seed, clip in edited.items()]))


def _sheet(seeds: range, shown: dict[str, dict[int, np.ndarray]], most: int = 8):
    """A row a scene: source, truth, and each method's edit, at the clip's first, middle and last frame."""
    rows = {}
    for seed in list(seeds)[:most]:
        edit = random_edit(seed)
        clips = [render_scene(s, FRAMES, SIZE, SIZE) for s in (edit.source, edit.target)]
        clips += [edited[seed] for edited in shown.values()]
        title = f"{edit.kind}: {edit.source_prompt} -> {edit.prompt} | source, truth, {', '.join(shown)}"
        rows[title] = np.concatenate([c[[0, FRAMES // 2, FRAMES - 1]] for c in clips], axis=2)
    return contact_sheet(rows)


def _show(name: str, values: dict[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True)
