"""The whole training of the built-in world, stage by stage; each stage resumes where it stopped."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import (
    build_text_encoder,
    build_text_to_video,
    build_vace,
    build_vae,
    save_folders,
    set_latent_statistics,
)
from kvlock.shapes.scene import FRAMES, SIZE
from kvlock.shapes.training.flow import train_transformer
from kvlock.shapes.training.latents import BUCKETS, encode_clips, load_latents
from kvlock.shapes.training.loop import load_average
from kvlock.shapes.training.vae import train_vae
from kvlock.shapes.training.validation import write_validation

STAGES = ("vae", "latents", "vace", "text-to-video", "decoder", "export")
VAE_CROP = 56
LEARNING_RATE = 1e-3


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
    """Run one stage, or all in turn; `out` holds the state and, at the end, two model folders.

    `steps` counts those of "vae", "transformer" (each of the two) and "decoder". The stages "vace"
    and "text-to-video" need the latents and, without `init`, the second needs the first's text
    encoder; with `init` they may run side by side, a process each.
    `export` writes the two folders from whatever state there is. The decoder is trained on after
    the encoder is done, so that the transformer's latents stay valid. Latents that are there are
    kept: delete the folder `latents` after training the encoder further.
    `init` is a trained `shapes-vace` folder, with `shapes-t2v` beside it, to start from: VAE and
    text encoder (which is then kept as it is), and transformers of the same size. Without it the
    weights are random. `on_sample(folder, step)` may draw samples from the exported folders.
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
        vae = AutoencoderKLWan.from_pretrained(run.init / "vae").float()
    train_vae(vae, run.out / "vae", run.steps["vae"], 4, FRAMES, SIZE, VAE_CROP, 2e-3, run.device)
    vae.save_pretrained(run.out / "vae-joint")


def _latents(run: _Run) -> None:
    encode_clips(run.out / "vae-joint", run.out / "latents", run.clips, run.device)
    if not run.init or run.steps["vae"]:  # a model to start from was trained on its own statistics
        vae = AutoencoderKLWan.from_pretrained(run.out / "vae-joint")
        latents = load_latents(run.out / "latents", run.clips)
        set_latent_statistics(vae, latents[BUCKETS[0].name]["target"])
        vae.save_pretrained(run.out / "vae-joint")


def _vace(run: _Run) -> None:
    model, text = _seeded(build_vace), _seeded(build_text_encoder)
    if run.init:
        _start_from(model, run.init / "transformer")
        text = _kept_text_encoder(run.init / "text_encoder")
    _train(run, "vace", model, text)


def _text_to_video(run: _Run) -> None:
    model = _seeded(build_text_to_video)
    if run.init:
        _start_from(model, run.init.with_name("shapes-t2v") / "transformer")
    _train(run, "text-to-video", model, _trained_text_encoder(run).requires_grad_(False))


def _train(run: _Run, name: str, model: nn.Module, text: UMT5EncoderModel) -> None:
    vae = AutoencoderKLWan.from_pretrained(run.out / "vae-joint").float().eval()
    averaged = copy.deepcopy(nn.ModuleDict({"dit": model, "text": text})).to(run.device).eval()

    def on_look(step: int, ema: dict[str, Tensor]) -> None:
        averaged.load_state_dict(ema, strict=False)
        write_validation(run.out / name, step, averaged["dit"], averaged["text"], vae)

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
        _load_part(model, load_average(run.out / name), "dit.")
    text = _trained_text_encoder(run)
    vace, text_to_video = (model.eval() for model in models.values())
    save_folders(run.out, vae.eval(), text.eval(), vace, text_to_video)
    if run.on_sample:
        run.on_sample(run.out, run.steps["transformer"])


def _trained_text_encoder(run: _Run) -> UMT5EncoderModel:
    if run.init:
        return _kept_text_encoder(run.init / "text_encoder")
    text = _seeded(build_text_encoder)
    _load_part(text, load_average(run.out / "vace"), "text.")
    return text


def _kept_text_encoder(folder: Path) -> UMT5EncoderModel:
    return UMT5EncoderModel.from_pretrained(folder).float().requires_grad_(False)


def _start_from(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a trained transformer, unless it is one of another size."""
    trained = type(model).from_pretrained(folder).float()
    shapes = {name: tensor.shape for name, tensor in trained.state_dict().items()}
    if shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}:
        model.load_state_dict(trained.state_dict())
    else:
        print(f"{folder} has another size: the transformer starts from random weights", flush=True)


def _load_part(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Copy the parameters whose names begin with `prefix`; tied ones are there under one name."""
    part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    assert part.keys() == dict(module.named_parameters()).keys()
    module.load_state_dict(part, strict=False)


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build()


_RUN = {
    "vae": _vae,
    "latents": _latents,
    "vace": _vace,
    "text-to-video": _text_to_video,
    "decoder": _decoder,
    "export": _export,
}
