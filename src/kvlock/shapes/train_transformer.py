"""Training the world's video DiT: one VACE model whose trunk alone is the text-to-video model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import TEXT_LENGTH, build_tokenizer, latent_statistics, text_to_video_trunk
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import FRAMES, SIZE, SceneEdit, random_edit
from kvlock.shapes.train_vae import TRAINING_SEEDS
from kvlock.shapes.trainer import train

TEXT_TO_VIDEO_EVERY = 4  # every fourth step trains the trunk alone
CAPTION_DROPOUT = 0.1
FOREGROUND_WEIGHT = 12.0
SHIFT = 3.0
SHARD = 500


def training_mask(edit: SceneEdit, seed: int) -> np.ndarray:
    """The edit's mask, bool [F, H, W]; sometimes grown, sometimes its bounding box, as people draw them."""
    rng = np.random.default_rng(seed)
    mask = render_mask(edit, FRAMES, SIZE, SIZE)
    style = rng.random()
    if style < 0.25:
        reach = int(rng.integers(1, 7))
        grown = F.max_pool2d(torch.from_numpy(mask).float(), 2 * reach + 1, stride=1, padding=reach)
        return grown.numpy() > 0
    if style < 0.4:
        return mask.any(axis=1, keepdims=True) & mask.any(axis=2, keepdims=True)
    return mask


def mask_channels(mask: Tensor, stride: int = 8, temporal: int = 4) -> Tensor:
    """A VACE control's mask channels, bool [F, H, W] -> bool [64, f, h, w], as WanVACEPipeline.prepare_masks."""
    frames, height, width = mask.shape
    blocks = mask.float().view(frames, height // stride, stride, width // stride, stride).permute(2, 4, 0, 1, 3)
    size = ((frames + temporal - 1) // temporal, height // stride, width // stride)
    return F.interpolate(blocks.flatten(0, 1)[None], size=size, mode="nearest-exact")[0] > 0


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, folder: Path, clips: int, device: str) -> None:
    """Latents of `clips` training edits in shards of 500; a shard that is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(device).eval()
    for shard in range((clips + SHARD - 1) // SHARD):
        path = folder / f"{shard:04d}.safetensors"
        if path.exists():
            continue
        rows: dict[str, list[Tensor]] = {"target": [], "inactive": [], "mask": []}
        for first in range(shard * SHARD, (shard + 1) * SHARD, 10):
            seeds = range(TRAINING_SEEDS + first, TRAINING_SEEDS + first + 10)
            edits = [random_edit(s) for s in seeds]
            masks = [training_mask(e, s) for e, s in zip(edits, seeds)]
            targets = [render_scene(e.target, FRAMES, SIZE, SIZE) / np.float32(127.5) - 1 for e in edits]
            holes = [t * ~m[..., None] for t, m in zip(targets, masks)]
            for name, clip in (("target", targets), ("inactive", holes)):
                pixels = torch.from_numpy(np.stack(clip)).permute(0, 4, 1, 2, 3).to(device)
                with torch.autocast(torch.device(device).type, torch.bfloat16):
                    rows[name].append(vae.encode(pixels).latent_dist.mode().half().cpu())
            rows["mask"].append(torch.stack([mask_channels(torch.from_numpy(m)) for m in masks]))
        save_file({name: torch.cat(parts).contiguous() for name, parts in rows.items()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        print(f"latents: {(shard + 1) * SHARD} of {clips}", flush=True)


def load_latents(folder: Path, clips: int) -> dict[str, Tensor]:
    """All shards together."""
    shards = [load_file(folder / f"{i:04d}.safetensors") for i in range((clips + SHARD - 1) // SHARD)]
    return {name: torch.cat([s[name] for s in shards]) for name in shards[0]}


def shared_trunk(vace: WanVACETransformer3DModel) -> WanTransformer3DModel:
    """The text-to-video model made of the VACE model's own modules: training one trains the other."""
    trunk = text_to_video_trunk(vace)
    for name in [n for n, _ in trunk.named_children()]:
        setattr(trunk, name, getattr(vace, name))
    trunk.scale_shift_table = vace.scale_shift_table
    return trunk


def train_transformer(
    vace: WanVACETransformer3DModel,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    latents: dict[str, Tensor],
    folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    on_save: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> None:
    """Train both in place on flow matching; afterwards they hold the averaged weights."""
    models = nn.ModuleDict({"vace": vace, "text": text_encoder}).to(device).train()
    trunk = shared_trunk(vace)
    mean, std = latent_statistics(vae)
    with torch.no_grad():
        grey = vae.encode(torch.zeros(1, 3, FRAMES, SIZE, SIZE, device=vae.device)).latent_dist.mode().cpu()
    reactive = ((grey - mean) / std).expand(batch, -1, -1, -1, -1)
    tokens = _tokenized(len(latents["target"]))

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        picks = torch.randint(len(latents["target"]), (batch,), generator=generator)
        clean = (latents["target"][picks].float() - mean) / std
        noise = torch.randn(clean.shape, generator=generator)
        u = torch.sigmoid(1.2 * torch.randn(batch, generator=generator))
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        level = sigma.view(-1, 1, 1, 1, 1)
        noisy = ((1 - level) * clean + level * noise).to(device)
        keep = torch.rand(batch, generator=generator) >= CAPTION_DROPOUT
        text = _encode_text(text_encoder, tokens[picks], keep, _padded_length(step), device)
        channels = latents["mask"][picks]
        text_to_video = step % TEXT_TO_VIDEO_EVERY == 0
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            if text_to_video:
                velocity = trunk(noisy, sigma.to(device) * 1000, text, return_dict=False)[0]
            else:
                inactive = (latents["inactive"][picks].float() - mean) / std
                control = torch.cat([inactive, reactive, channels.float()], dim=1).to(device)
                velocity = vace(
                    noisy, sigma.to(device) * 1000, text, control_hidden_states=control, return_dict=False
                )[0]
        error = (velocity.float() - (noise - clean).to(device)).square()
        inside = channels.any(dim=1, keepdim=True).float().to(device)
        weight = 1 + (FOREGROUND_WEIGHT - 1) * inside
        loss = (error * weight).mean() / weight.mean()
        return {"loss": loss, "t2v" if text_to_video else "vace": error.mean()}

    ema = train(models, loss_at, folder, steps, learning_rate, save_every=1000, on_save=on_save)
    models.load_state_dict(ema, strict=False)
    models.eval()


def _tokenized(clips: int) -> Tensor:
    prompts = [random_edit(TRAINING_SEEDS + i).prompt for i in range(clips)]
    return build_tokenizer()(prompts, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt").input_ids


def _padded_length(step: int) -> int:
    """Mostly short; sometimes as long as pipelines pad by default, so that the padding's length means nothing."""
    if step % 40 == 7:
        return 512
    return 64 if step % 4 == 1 else TEXT_LENGTH


def _encode_text(encoder: UMT5EncoderModel, tokens: Tensor, keep: Tensor, length: int, device: str) -> Tensor:
    """Embeddings as the Wan pipelines make them: padding is zero after the encoder. A dropped caption is empty."""
    empty = torch.zeros_like(tokens)
    empty[:, 0] = 1
    tokens = torch.where(keep[:, None], tokens, empty).to(device)
    mask = (tokens != 0).long()
    embeds = encoder(tokens, mask).last_hidden_state * mask[..., None]
    return F.pad(embeds, (0, 0, 0, length - embeds.shape[1]))
