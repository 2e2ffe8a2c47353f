"""What `kvlock shapes train` shows of a training: sample edits on the way, and the curves of its
logs.
"""

import json
from pathlib import Path

from kvlock.backbones.loading import load_backbone
from kvlock.bench.world import edit_scenes, scene_sheet, score_scenes, show, summary
from kvlock.contract.records import typed
from kvlock.editing.clips import default_config
from kvlock.media.files import whole_file

SAMPLE_STEPS = 12
STAGES = {
    "vae": "VAE",
    "text": "text encoder",
    "vace": "masked control (VACE)",
    "text-to-video": "text to video",
    "decoder": "decoder alone",
}
LOSSES = {
    "mse": "whole clip",
    "inside": "inside the object's disc",
    "vace": "masked control (VACE)",
    "t2v": "text to video",
}


def draw_samples(model: Path, out: Path, step: int, num: int = 6) -> None:
    """A contact sheet of a few plain edits by the model in training that `model` holds."""
    backbone, seeds = load_backbone(str(model / "shapes-vace"), max_sequence_length=16), range(num)
    config = default_config("shapes", "plain", num_inference_steps=SAMPLE_STEPS)
    edited = edit_scenes(backbone, seeds, config)
    out.mkdir(parents=True, exist_ok=True)
    scene_sheet(seeds, {"plain": edited}).save(out / f"{step:06d}.png")
    show(f"step {step}", summary(score_scenes(edited)))


def plot_training(folder: Path, picture: Path) -> None:
    """Loss over steps, a panel for each stage whose `log.jsonl` is under `folder`.

    Raises ValueError where there is no log.
    """
    from matplotlib.figure import Figure

    logs = {stage: _read(folder / stage / "log.jsonl") for stage in STAGES}
    logs = {stage: lines for stage, lines in logs.items() if lines}
    if not logs:
        raise ValueError(f"{folder} holds no training log; expected {folder}/vae/log.jsonl")
    figure = Figure(figsize=(4.5 * len(logs), 3.2), layout="constrained")
    panels = figure.subplots(1, len(logs), squeeze=False)[0]
    for axes, (stage, lines) in zip(panels, logs.items()):
        steps = [line["step"] for line in lines]
        for name in (n for n in LOSSES if n in lines[0]):
            axes.plot(steps, [line[name] for line in lines], label=LOSSES[name])
        axes.set(title=STAGES[stage], xlabel="step", ylabel="mean squared error", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    with whole_file(picture) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None})


def _read(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
        return typed(lines, list[dict[str, float]])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no log of a training; remove the damaged lines") from error
