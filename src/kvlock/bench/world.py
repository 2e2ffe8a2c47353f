"""`kvlock shapes evaluate`: the built-in models on held-out scenes, where the true edit is known to
the pixel.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kvlock.backbones.loading import load_backbone
from kvlock.bench.jobs import BATCH, batches_of
from kvlock.bench.scores import score
from kvlock.bench.subjects import Subject, edit_subjects, load_subject, round_trip
from kvlock.bench.suite import shapes_suite
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest
from kvlock.editing.clips import default_config
from kvlock.media.files import write_json
from kvlock.media.pictures import contact_sheet
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import MethodConfig, config_to_dict
from kvlock.metrics.background import psnr_frame
from kvlock.shapes.answers import dominant_colour
from kvlock.shapes.scene import FRAMES, SIZE, random_edit, random_scene
from kvlock.shapes.scenes import scene_clips

SHEET_ROWS = 8
CEILING = "VAE round trip"
Scores = dict[str, float]
Videos = dict[int, Tensor]  # of a scene's seed: uint8 [F, H, W, 3]


def evaluate_world(
    out: Path, seeds: range, steps: int, methods: tuple[str, ...], model: str, t2v_model: str
) -> dict[str, Scores]:
    """Measure, print, and write `evaluation.json` and `sheet.png` under `out`; returns a summary a
    method.

    Raises ValueError for no seed, or an unknown method or model.
    """
    configs = {m: default_config(model, m, num_inference_steps=steps) for m in methods}
    if not len(seeds):
        raise ValueError("there is no scene to measure; expected --num 1 or more")
    backbone = load_backbone(model)
    shown, coded = {}, vae_round_trip(backbone, seeds)
    scores = {CEILING: score_scenes(coded)}
    whole = float(np.mean([whole_psnr(seed, clip) for seed, clip in coded.items()]))
    show(CEILING, {"PSNR whole, dB": whole} | summary(scores[CEILING]))
    for method, config in configs.items():
        began = time.monotonic()
        shown[method] = edit_scenes(backbone, seeds, config)
        seconds = (time.monotonic() - began) / len(seeds)
        scores[method] = score_scenes(shown[method])
        show(method, summary(scores[method]) | {"seconds a clip": seconds})
    right = 100 * _right_colours(load_backbone(t2v_model), seeds, steps)
    show("text-to-video", {"right colour %": right})
    rows = {name: summary(found) for name, found in scores.items()}
    how = {"steps": steps, "seeds": [seeds.start, seeds.stop], "device": str(backbone.device)}
    how |= {"torch": torch.__version__}
    how |= {"configs": {method: config_to_dict(config) for method, config in configs.items()}}
    measured = {"VAE PSNR whole, dB": whole, "text-to-video right colour %": right}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", {"how": how, **measured, "rows": rows, "scores": scores})
    scene_sheet(seeds, shown).save(out / "sheet.png")
    return rows


def edit_scenes(backbone: Backbone, seeds: range, config: MethodConfig) -> Videos:
    """The edited clips of scenes, a few at a time."""
    edited = {}
    for group in _groups(seeds):
        results = edit_subjects(backbone, "shapes", config, list(group.values()))
        edited |= {seed: result.video for seed, result in zip(group, results)}
    return edited


def vae_round_trip(backbone: Backbone, seeds: range) -> Videos:
    """The true edited clips through the VAE and back: no edit can be better."""
    subjects = {seed: subject for group in _groups(seeds) for seed, subject in group.items()}
    return {seed: round_trip(backbone, "shapes", subject) for seed, subject in subjects.items()}


def score_scenes(edited: Videos) -> dict[int, Scores]:
    """The metrics of `kvlock bench run`, of a clip a scene."""
    return {seed: score(clip, _subject(seed).known) for seed, clip in edited.items()}


def summary(scores: dict[int, Scores]) -> Scores:
    """Shares in percent, PSNR in dB, means over the clips.

    Colour, shape and `temporal` (`outline_change`) count the edits that leave an object, `removed`
    those that take it away; NaN where there are none.
    """
    removals = [found for seed, found in scores.items() if random_edit(seed).kind == "remove"]
    clips = list(scores.values())
    return {
        "n": len(clips),
        "right colour %": 100 * _mean(clips, "right_colour"),
        "right shape %": 100 * _mean(clips, "right_shape"),
        "removed %": 100 * _mean(removals, "right_edit"),
        "temporal": _mean(clips, "temporal"),
        "PSNR inside, dB": _mean(clips, "psnr_inside"),
        "PSNR background, dB": _mean(clips, "psnr_background"),
        "SSIM background": _mean(clips, "ssim_background"),
    }


def whole_psnr(seed: int, clip: Tensor) -> float:
    """PSNR of a clip against the true edited one over whole frames, in dB."""
    return psnr_frame(scene_clips(seed)["truth"], clip)


def scene_sheet(seeds: range, shown: dict[str, Videos]) -> Image.Image:
    """A row a scene: source, truth, and each method's edit, at the clip's first, middle and last
    frame.
    """
    rows = {}
    for seed in list(seeds)[:SHEET_ROWS]:
        edit, known = random_edit(seed), scene_clips(seed)
        clips = [known["source"], known["truth"], *(edited[seed] for edited in shown.values())]
        prompts = f"{edit.kind}: {edit.source_prompt} -> {edit.prompt}"
        frames = [clip[[0, FRAMES // 2, FRAMES - 1]] for clip in clips]
        rows[f"{prompts} | source, truth, {', '.join(shown)}"] = torch.cat(frames, dim=2)
    return contact_sheet(rows)


def show(name: str, values: Scores) -> None:
    """One line on the terminal."""
    print(
        f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True
    )


def _groups(seeds: range) -> Iterator[dict[int, Subject]]:
    """Scenes by their seeds, as many together as are edited in one forward."""
    for items in batches_of(shapes_suite("shapes", seeds).items):
        yield {item.scene: _subject(item.scene) for item in items if item.scene is not None}


def _subject(seed: int) -> Subject:
    suite = shapes_suite("shapes", range(seed, seed + 1))
    return load_subject(suite, suite.items[0], 0)


def _mean(clips: list[Scores], metric: str) -> float:
    values = [clip[metric] for clip in clips if metric in clip]
    return float(np.mean(values)) if values else float("nan")


def _right_colours(backbone: Backbone, seeds: range, steps: int) -> float:
    """How many of a text-to-video model's clips have the colour of the one shape that their prompt
    names, 0 to 1.
    """
    config = default_config(
        "shapes-t2v", "plain", num_inference_steps=steps, background_anchor="none"
    )
    blank = torch.zeros(FRAMES, SIZE, SIZE, 3, dtype=torch.uint8)
    free = torch.ones(FRAMES, SIZE, SIZE, dtype=torch.bool)
    scenes = {seed: random_scene(seed) for seed in seeds}
    scenes = {seed: replace(scene, shapes=scene.shapes[:1]) for seed, scene in scenes.items()}
    requests = [EditRequest(blank, free, scene.prompt, seed=s) for s, scene in scenes.items()]
    batches = [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]
    videos = [result.video for batch in batches for result in edit_clips(backbone, batch, config)]
    wanted = [scene.shapes[0].colour for scene in scenes.values()]
    return float(np.mean([dominant_colour(clip) == c for clip, c in zip(videos, wanted)]))
