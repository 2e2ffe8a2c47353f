"""The logs of `kvlock shapes train` as one picture."""

import json
from pathlib import Path

STAGES = ("vae", "transformer", "decoder")
LOSSES = ("mse", "inside", "vace", "t2v")


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
    for axes, (stage, lines) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items()):
        for name in (n for n in LOSSES if n in lines[0]):
            axes.plot([line["step"] for line in lines], [line[name] for line in lines], label=name)
        axes.set_title(stage)
        axes.set_xlabel("step")
        axes.set_ylabel("mean squared error")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def _read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
