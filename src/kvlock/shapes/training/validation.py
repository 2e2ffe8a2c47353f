"""How well a transformer in training does on the validation scenes."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import TEXT_LENGTH, build_tokenizer, latent_statistics
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.training.flow import TEXT_TO_VIDEO_SHIFT, encode_text
from kvlock.shapes.training.latents import Bucket, mask_channels, object_tokens

SCENES = Bucket("validation", 9, 96, 96, 0, 40, 10_000)
LEVELS = (1.0, 0.95, 0.8, 0.6, 0.3)
STEPS = 12


def write_validation(
    folder: Path,
    step: int,
    model: WanVACETransformer3DModel | WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
) -> None:
    """Append a line to `validation.jsonl`: velocity errors by noise level, and PSNR inside in dB.

    The errors are those of the objects' tokens, or the mask's where the model fills a hole. Such a
    model also edits the scenes, in 12 Euler steps without guidance, against the true edits.
    """
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16):
        scenes = _scenes(vae, isinstance(model, WanVACETransformer3DModel))
        line: dict[str, float] = {"step": step}
        for level in LEVELS:
            line[f"error at {level}"] = _error(model, text_encoder, scenes, level)
        if "control" in scenes:
            line["PSNR inside"] = _edited_psnr(model, text_encoder, vae, scenes)
    text = json.dumps({name: round(value, 4) for name, value in line.items()})
    print(f"{folder.name}, validation: {text}", flush=True)
    with open(folder / "validation.jsonl", "a") as file:
        file.write(text + "\n")


def _error(model, text_encoder, scenes: dict[str, Tensor], level: float) -> float:
    noisy = (1 - level) * scenes["clean"] + level * scenes["noise"]
    velocity = _velocity(model, text_encoder, scenes, noisy, level)
    error = (velocity - (scenes["noise"] - scenes["clean"])).square().mean(dim=1)
    return float((error * scenes["inside"]).sum() / scenes["inside"].sum())


def _velocity(
    model, text_encoder, scenes: dict[str, Tensor], noisy: Tensor, level: float
) -> Tensor:
    tokens, device = scenes["tokens"], model.device
    keep = torch.ones(len(tokens), dtype=torch.bool)
    text = encode_text(text_encoder, tokens, keep, TEXT_LENGTH)
    inputs = {"hidden_states": noisy.to(device)}
    if "control" in scenes:
        inputs["control_hidden_states"] = scenes["control"].to(device)
    times = torch.full((len(noisy),), 1000 * level, device=device)
    found = model(timestep=times, encoder_hidden_states=text, return_dict=False, **inputs)[0]
    return found.float().cpu()


def _edited_psnr(model, text_encoder, vae: AutoencoderKLWan, scenes: dict[str, Tensor]) -> float:
    levels = torch.linspace(1, 0, STEPS + 1)
    levels = (TEXT_TO_VIDEO_SHIFT * levels / (1 + (TEXT_TO_VIDEO_SHIFT - 1) * levels)).tolist()
    latents = scenes["noise"]
    for level, following in zip(levels, levels[1:]):
        velocity = _velocity(model, text_encoder, scenes, latents, level)
        latents = latents + (following - level) * velocity
    mean, std = latent_statistics(vae)
    values = []
    for one, edit in zip(latents * std + mean, SCENES.edits(range(SCENES.batch))):
        decoded = vae.decode(one[None].to(vae.device)).sample[0].float().cpu().permute(1, 2, 3, 0)
        pixels = (decoded * 127.5 + 127.5).round().clamp(0, 255).numpy()
        mask, truth = render_mask(edit, 9, 96, 96), render_scene(edit.target, 9, 96, 96)
        values.append(10 * np.log10(255**2 / np.square(pixels - truth)[mask].mean()))
    return float(np.mean(values))


@lru_cache(maxsize=1)
def _scenes(vae: AutoencoderKLWan, with_control: bool) -> dict[str, Tensor]:
    mean, std = latent_statistics(vae)
    edits = SCENES.edits(range(SCENES.batch))
    clips = [render_scene(e.target, 9, 96, 96) / np.float32(127.5) - 1 for e in edits]
    masks = [render_mask(e, 9, 96, 96) for e in edits]

    def encode(pixels: list[np.ndarray]) -> Tensor:
        batches = torch.from_numpy(np.stack(pixels)).permute(0, 4, 1, 2, 3).split(8)
        encoded = [vae.encode(b.to(vae.device)).latent_dist.mode().float().cpu() for b in batches]
        return (torch.cat(encoded) - mean) / std

    clean = encode(clips)
    padding = dict(padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
    scenes = {
        "clean": clean,
        "noise": torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)),
        "tokens": build_tokenizer()([e.prompt for e in edits], **padding).input_ids,
        "inside": torch.stack([torch.from_numpy(object_tokens(e, SCENES)) for e in edits]).float(),
    }
    if with_control:
        mask = torch.stack([mask_channels(torch.from_numpy(m)) for m in masks])
        grey = encode([np.zeros_like(clips[0])]).expand_as(clean)
        holes = encode([c * ~m[..., None] for c, m in zip(clips, masks)])
        scenes["inside"] = mask.any(dim=1).float()
        scenes["control"] = torch.cat([holes, grey, mask.float()], dim=1)
    return scenes
