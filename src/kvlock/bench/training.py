"""What `kvlock shapes train` shows of a training: sample edits on the way, and the curves of its
logs.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from kvlock.backbones.loading import load_backbone
from kvlock.bench.suite import VALIDATION
from kvlock.bench.world import edit_scenes, scene_sheet, score_scenes, show, summary
from kvlock.contract.records import typed
from kvlock.editing.clips import default_config
from kvlock.media.files import whole_file

SAMPLE_STEPS = 12
SAMPLES = VALIDATION[:6]


@dataclass(frozen=True)
class Panel:
    """What is drawn of a stage: `curves` are the log's names, and how they are called."""

    title: str
    axis: str
    curves: dict[str, str]


_PIXELS = {"mse": "whole clip", "inside": "inside the object's disc"}
PANELS = {
    "vae": Panel("VAE", "mean squared error, pixels", _PIXELS),
    "text": Panel("text encoder", "cross entropy", {"loss": "object, colour and kind"}),
    "vace": Panel("masked control (VACE)", "mean squared error, latents", {"vace": "velocity"}),
    "text-to-video": Panel("text to video", "mean squared error, latents", {"t2v": "velocity"}),
    "decoder": Panel("decoder alone", "mean squared error, pixels", _PIXELS),
}


def draw_samples(model: Path, out: Path, step: int, seeds: range = SAMPLES) -> None:
    """A contact sheet of plain edits by the model in training in the folder `model`, which fills
    holes; of validation scenes, since choices are made on them.
    """
    backbone = load_backbone(str(model))
    config = default_config("shapes", "plain", num_inference_steps=SAMPLE_STEPS)
    edited = edit_scenes(backbone, seeds, config)
    out.mkdir(parents=True, exist_ok=True)
    scene_sheet(seeds, {"plain": edited}).save(out / f"{step:06d}.png")
    show(f"step {step}", summary(score_scenes(edited)))


def plot_training(folder: Path, picture: Path) -> bool:
    """Loss over steps, a panel for each stage whose `log.jsonl` is under `folder`.

    Returns whether there was any log, and so a picture.
    """
    from matplotlib.figure import Figure

    logs = {stage: _read(folder / stage / "log.jsonl") for stage in PANELS}
    logs = {stage: lines for stage, lines in logs.items() if lines}
    if not logs:
        return False
    figure = Figure(figsize=(4.5 * len(logs), 3.2), layout="constrained")
    panels = figure.subplots(1, len(logs), squeeze=False)[0]
    for axes, (stage, lines) in zip(panels, logs.items()):
        panel, steps = PANELS[stage], [line["step"] for line in lines]
        for name, label in panel.curves.items():
            axes.plot(steps, [line[name] for line in lines], label=label)
        axes.set(title=panel.title, xlabel="step", ylabel=panel.axis, yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    with whole_file(picture) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None})
    return True


def _read(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
        return typed(lines, list[dict[str, float]])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no log of a training; remove the damaged lines") from error
