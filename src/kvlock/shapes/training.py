"""The whole training of the built-in world, stage by stage; each stage resumes where it was stopped."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import (
    build_text_encoder,
    build_transformer,
    build_vae,
    save_folders,
    set_latent_statistics,
)
from kvlock.shapes.scene import FRAMES, SIZE
from kvlock.shapes.train_transformer import encode_clips, load_latents, train_transformer
from kvlock.shapes.train_vae import train_vae

STAGES = ("vae", "latents", "transformer", "decoder", "export")
VAE_CROP = 56


def train_world(
    out: Path,
    stage: str,
    steps: dict[str, int],
    clips: int,
    device: str,
    on_sample: Callable[[Path, int], None] | None = None,
    init: Path | None = None,
) -> None:
    """Run one stage, or all of them in turn; `out` holds the state and, at the end, the two model folders.

    The decoder is trained on after the encoder is done, so that the latents of the transformer's clips stay valid.
    Latents that are there are kept: delete the folder `latents` after training the encoder further.
    `init` is a trained `shapes-vace` folder to start from; without it the weights are random.
    `on_sample(folder, step)` may draw samples from the model folders exported at a save.
    Raises ValueError for an unknown stage.
    """
    if stage not in ("all", *STAGES):
        raise ValueError(f"stage {stage!r} is unknown; expected all, {', '.join(STAGES)}")
    out.mkdir(parents=True, exist_ok=True)
    for name in STAGES if stage == "all" else (stage,):
        print(f"stage {name}", flush=True)
        _RUN[name](out, steps, clips, device, on_sample, init)


def _vae(out: Path, steps: dict[str, int], clips: int, device: str, on_sample, init: Path | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLWan.from_pretrained(init / "vae").float() if init else build_vae()
    train_vae(vae, out / "vae", steps["vae"], 4, FRAMES, SIZE, VAE_CROP, 2e-3, device)
    vae.save_pretrained(out / "vae-joint")


def _latents(out: Path, steps: dict[str, int], clips: int, device: str, on_sample, init: Path | None) -> None:
    vae = AutoencoderKLWan.from_pretrained(out / "vae-joint")
    encode_clips(vae, out / "latents", clips, device)
    if not init or steps["vae"]:  # a model to start from was trained on its own statistics
        set_latent_statistics(vae, load_latents(out / "latents", clips)["target"])
    vae.save_pretrained(out / "vae-joint")


def _transformer(out: Path, steps: dict[str, int], clips: int, device: str, on_sample, init: Path | None) -> None:
    vace, text_encoder = _trained_models(init) if init else _fresh_models()
    vae = AutoencoderKLWan.from_pretrained(out / "vae-joint")

    def on_save(step: int, ema: dict[str, Tensor]) -> None:
        if on_sample:
            averaged, text = _fresh_models()
            torch.nn.ModuleDict({"vace": averaged, "text": text}).load_state_dict(ema, strict=False)
            save_folders(
                out / "sample-model",
                AutoencoderKLWan.from_pretrained(out / "vae-joint").eval(),
                text.eval(),
                averaged.eval(),
            )
            on_sample(out / "sample-model", step)

    latents = load_latents(out / "latents", clips)
    train_transformer(
        vace, text_encoder, vae, latents, out / "transformer", steps["transformer"], 16, 1e-3, device, on_save
    )
    vace.save_pretrained(out / "transformer-trained")
    text_encoder.save_pretrained(out / "text-trained")


def _decoder(out: Path, steps: dict[str, int], clips: int, device: str, on_sample, init: Path | None) -> None:
    vae = AutoencoderKLWan.from_pretrained(out / "vae-joint")
    train_vae(vae, out / "decoder", steps["decoder"], 4, FRAMES, SIZE, SIZE, 7e-4, device, decoder_only=True)
    vae.save_pretrained(out / "vae-trained")


def _export(out: Path, steps: dict[str, int], clips: int, device: str, on_sample, init: Path | None) -> None:
    vae = AutoencoderKLWan.from_pretrained(out / "vae-trained")
    vace = WanVACETransformer3DModel.from_pretrained(out / "transformer-trained")
    text_encoder = UMT5EncoderModel.from_pretrained(out / "text-trained")
    save_folders(out, vae.eval(), text_encoder.eval(), vace.eval())


def _fresh_models():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_transformer(), build_text_encoder()


def _trained_models(folder: Path):
    """In float32, whatever they were saved in."""
    vace = WanVACETransformer3DModel.from_pretrained(folder / "transformer").float()
    return vace, UMT5EncoderModel.from_pretrained(folder / "text_encoder").float()


_RUN = {"vae": _vae, "latents": _latents, "transformer": _transformer, "decoder": _decoder, "export": _export}
