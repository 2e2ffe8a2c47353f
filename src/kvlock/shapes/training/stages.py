"""The whole training of the built-in world, stage by stage; each stage resumes where it stopped."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from kvlock.backbones.checkpoints import SHARED
from kvlock.shapes.checkpoint import (
    TEXT_TO_VIDEO,
    TRUNK,
    VACE,
    build_text_encoder,
    build_text_to_video,
    build_vace,
    build_vae,
    save_models,
    set_latent_statistics,
)
from kvlock.shapes.scene import FRAMES, SIZE
from kvlock.shapes.training.flow import train_transformer
from kvlock.shapes.training.latents import BUCKETS, encode_clips, load_latents
from kvlock.shapes.training.loop import load_average
from kvlock.shapes.training.text import train_text_encoder
from kvlock.shapes.training.vae import train_vae
from kvlock.shapes.training.validation import write_validation

WEIGHTS = "weights"  # the folder of a training that its models are exported to
STAGES = ("vae", "text", "latents", "vace", "text-to-video", "decoder", "export")
VAE_CROP = 56
LEARNING_RATE = 1e-3
TEXT_STEPS = 1000


@dataclass(frozen=True)
class _Run:
    """What every stage is given."""

    out: Path
    steps: dict[str, int]
    clips: int
    device: str
    on_sample: Callable[[Path, int], None] | None
    init: Path | None


def train_world(
    out: Path,
    stage: str,
    steps: dict[str, int],
    clips: int,
    device: str,
    on_sample: Callable[[Path, int], None] | None = None,
    init: Path | None = None,
) -> None:
    """Run one stage, or all in turn; `out` holds the state and, at the end, the models in
    `weights`.

    `steps` counts those of "vae", "transformer" (each of the two) and "decoder". The stages "vace"
    and "text-to-video" need those before them and not each other: they may run side by side, a
    process each. `export` writes the models from whatever state there is. The decoder is
    trained on after the encoder is done, so that the transformers' latents stay valid. Latents that
    are there are kept: delete the folder `latents` after training the encoder further.
    `init` is such a folder of `weights` to start from; where its transformers are of another size,
    only its VAE is used. Without it the weights are random.
    `on_sample(weights, step)` may draw samples from the exported models.
    Raises ValueError for an unknown stage, and where a stage lacks what an earlier one makes.
    """
    if stage not in ("all", *STAGES):
        raise ValueError(f"stage {stage!r} is unknown; expected all, {', '.join(STAGES)}")
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(out, steps, clips, device, on_sample, init)
    for name in STAGES if stage == "all" else (stage,):
        print(f"stage {name}", flush=True)
        _RUN[name](run)


def _vae(run: _Run) -> None:
    vae = _seeded(build_vae)
    if run.init:
        vae = AutoencoderKLWan.from_pretrained(run.init / SHARED / "vae").float()
    train_vae(vae, run.out / "vae", run.steps["vae"], 4, FRAMES, SIZE, VAE_CROP, 2e-3, run.device)
    vae.save_pretrained(run.out / "vae-joint")


def _latents(run: _Run) -> None:
    encode_clips(run.out / "vae-joint", run.out / "latents", run.clips, run.device)
    if not run.init or run.steps["vae"]:  # a model to start from was trained on its own statistics
        vae = AutoencoderKLWan.from_pretrained(run.out / "vae-joint")
        latents = load_latents(run.out / "latents", run.clips)
        set_latent_statistics(vae, latents[BUCKETS[0].name]["target"])
        vae.save_pretrained(run.out / "vae-joint")


def _text(run: _Run) -> None:
    if _has_transformer(run.init):
        text = UMT5EncoderModel.from_pretrained(run.init / SHARED / "text_encoder").float()
    else:
        text = _seeded(build_text_encoder)
        right = train_text_encoder(text, run.out / "text", TEXT_STEPS, run.device)
        print(f"text: {100 * right:.1f} % of the words' objects are read right", flush=True)
    text.save_pretrained(run.out / "text-trained")


def _vace(run: _Run) -> None:
    model = _seeded(build_vace)
    if _has_transformer(run.init):
        folder = run.init / VACE / "transformer"
        model = WanVACETransformer3DModel.from_pretrained(folder).float()
    _train(run, "vace", model)


def _text_to_video(run: _Run) -> None:
    model = _seeded(build_text_to_video)
    if _has_transformer(run.init):
        folder = run.init / TEXT_TO_VIDEO / "transformer"
        model = WanTransformer3DModel.from_pretrained(folder).float()
    _train(run, "text-to-video", model)


def _train(run: _Run, name: str, model: nn.Module) -> None:
    vae = _trained(AutoencoderKLWan, run.out / "vae-joint", "vae")
    text = _trained(UMT5EncoderModel, run.out / "text-trained", "text").to(run.device)
    averaged = copy.deepcopy(model).to(run.device).eval()

    def on_look(step: int, average: dict[str, Tensor]) -> None:
        averaged.load_state_dict(average)
        write_validation(run.out / name, step, averaged, text, vae)

    latents = load_latents(run.out / "latents", run.clips)
    steps = run.steps["transformer"]
    train_transformer(
        model, text, vae, latents, run.out / name, steps, LEARNING_RATE, run.device, on_look
    )


def _decoder(run: _Run) -> None:
    vae = AutoencoderKLWan.from_pretrained(run.out / "vae-joint")
    steps = run.steps["decoder"]
    train_vae(
        vae, run.out / "decoder", steps, 4, FRAMES, SIZE, SIZE, 7e-4, run.device, decoder_only=True
    )
    vae.save_pretrained(run.out / "vae-trained")


def _export(run: _Run) -> None:
    trained = run.out / "vae-trained"
    vae = AutoencoderKLWan.from_pretrained(trained if trained.exists() else run.out / "vae-joint")
    models = {"vace": _seeded(build_vace), "text-to-video": _seeded(build_text_to_video)}
    for name, model in models.items():
        model.load_state_dict(load_average(run.out / name))
    text = _trained(UMT5EncoderModel, run.out / "text-trained", "text")
    vace, text_to_video = (model.eval() for model in models.values())
    save_models(run.out / WEIGHTS, vae.eval(), text, vace, text_to_video)
    if run.on_sample:
        run.on_sample(run.out / WEIGHTS, run.steps["transformer"])


def _has_transformer(init: Path | None) -> TypeGuard[Path]:
    """Whether `init` holds transformers of the size that is trained here."""
    if not init:
        return False
    config = json.loads((init / VACE / "transformer" / "config.json").read_text())
    return all(config[name] == json.loads(json.dumps(value)) for name, value in TRUNK.items())


def _trained(kind: type[nn.Module], folder: Path, stage: str) -> nn.Module:
    """What an earlier stage has trained, kept as it is."""
    if not folder.exists():
        raise ValueError(f"{folder} is not there; run the stage {stage!r} first")
    return kind.from_pretrained(folder).float().requires_grad_(False).eval()


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build()


_RUN = {
    "vae": _vae,
    "text": _text,
    "latents": _latents,
    "vace": _vace,
    "text-to-video": _text_to_video,
    "decoder": _decoder,
    "export": _export,
}
