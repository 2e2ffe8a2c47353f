"""Training the world's video VAE: rendered clips, some with a grey hole as VACE sees them."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import random_edit
from kvlock.shapes.training.loop import train

TRAINING_SEEDS = 1_000_000  # training draws scenes from here on; everything below is held out
KL_WEIGHT = 3e-5
L1_WEIGHT = 0.05
HOLE_SHARE = 0.25
CENTRED_SHARE = 0.8  # crops that follow an object; drawn anywhere, most show only background
OBJECT_WEIGHT = 4.0  # of the pixels inside an object's disc in the loss


def clip_batch(seeds: range, frames: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
    """Rendered clips in [-1, 1], [B, 3, F, crop, crop], some with a grey hole; loss weights.

    The weights, [B, 1, F, crop, crop], are OBJECT_WEIGHT where the edit's object is shown, else 1.
    """
    clips, weights = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        edit = random_edit(seed)
        clip = render_scene(edit.target, frames, size, size).astype(np.float32) / 127.5 - 1
        inside = render_mask(edit, frames, size, size)
        weight = np.where(inside, np.float32(OBJECT_WEIGHT), np.float32(1))
        if rng.random() < HOLE_SHARE:
            clip[inside], weight = 0, np.ones_like(weight)
        y, x = rng.integers(0, size - crop + 1, 2)
        if rng.random() < CENTRED_SHARE:
            jitter = rng.uniform(-0.1, 0.1, 2) * crop
            centre = np.array(edit.disc.centre(0.5)[::-1]) * size
            y, x = np.clip(np.rint(centre + jitter - crop / 2).astype(int), 0, size - crop)
        window = slice(None), slice(y, y + crop), slice(x, x + crop)
        clips.append(clip[window])
        weights.append(weight[window])
    batch = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()
    return batch, torch.from_numpy(np.stack(weights))[:, None]


def train_vae(
    vae: AutoencoderKLWan,
    folder: Path,
    steps: int,
    batch: int,
    frames: int,
    size: int,
    crop: int,
    learning_rate: float,
    device: str,
    decoder_only: bool = False,
) -> None:
    """Train `vae` in place; afterwards it holds the averaged weights.

    With `decoder_only` the encoder stays as it is, so that latents made with it stay valid.
    """
    vae.to(device).train()
    if decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    def loss_at(step: int) -> dict[str, Tensor]:
        first = TRAINING_SEEDS + step * batch + (50_000_000 if decoder_only else 0)
        clips, weight = (
            x.to(device) for x in clip_batch(range(first, first + batch), frames, size, crop)
        )
        generator = torch.Generator(device).manual_seed(step)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = vae.encode(clips).latent_dist
            latents = posterior.sample(generator=generator)
            decoded = vae.decode(latents).sample
        error = decoded.float() - clips
        kl = posterior.kl().sum() / latents.numel()
        weighted = ((error.square() + L1_WEIGHT * error.abs()) * weight).mean() / weight.mean()
        inside = (error.square() * (weight > 1)).sum() / (3 * (weight > 1).sum()).clamp(min=1)
        return {
            "loss": weighted + KL_WEIGHT * kl,
            "mse": error.square().mean(),
            "inside": inside,
            "kl": kl,
        }

    ema = train(vae, loss_at, folder, steps, learning_rate)
    vae.load_state_dict(ema, strict=False)
    vae.requires_grad_(True).eval()
