"""Flow matching for the world's two transformers, each with weights of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import TEXT_LENGTH, build_tokenizer, latent_statistics
from kvlock.shapes.training.latents import BUCKETS, Bucket, unpack_mask
from kvlock.shapes.training.loop import train

CAPTION_DROPOUT = 0.1
INSIDE_WEIGHT = 10.0  # of the mask's tokens in the VACE model's loss
OBJECT_WEIGHT = 4.0  # of the objects' tokens in the text-to-video model's loss
VACE_SHIFT = 5.0  # what stands in the hole is decided in the first, noisiest steps
TEXT_TO_VIDEO_SHIFT = 3.0
PIXEL_SHARE = 0.8  # of the pixels' metric in the loss; the rest weighs all channels alike
LOOK_EVERY = 2000
EMA_DECAY = 0.9995
COMPILE_FROM = 1000  # steps; compiling takes a minute and saves a third of every step

Latents = dict[str, dict[str, Tensor]]
Transformer = WanVACETransformer3DModel | WanTransformer3DModel


@dataclass(frozen=True)
class Draw:
    """What a step trains on: clips of one bucket, by number, noise, and a noise level each.

    `clean` and `noise` [B, 16, f, h, w], normalised latents; `sigma` [B]; `keep`, bool [B], says
    which captions are shown.
    """

    bucket: Bucket
    picks: Tensor
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    keep: Tensor

    @property
    def noisy(self) -> Tensor:
        """The clips at their noise levels."""
        level = self.sigma.view(-1, 1, 1, 1, 1)
        return (1 - level) * self.clean + level * self.noise


def train_transformer(
    model: Transformer,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    latents: Latents,
    folder: Path,
    steps: int,
    learning_rate: float,
    device: str,
    on_look: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> None:
    """Train `model` in place, its state in `folder`; afterwards it holds the averaged weights.

    A VACE model is trained to fill the hole of its control, a text-to-video model freely.
    The text encoder stays as it is, so that both models can share it.
    """
    model.to(device).train()
    if steps >= COMPILE_FROM:
        model.compile_repeated_blocks(dynamic=False)
    loss_at = flow_loss(model, text_encoder, vae, latents, device)
    average = train(
        model,
        loss_at,
        folder,
        steps,
        learning_rate,
        EMA_DECAY,
        look_every=LOOK_EVERY,
        on_look=on_look,
    )
    model.load_state_dict(average, strict=False)
    model.eval()


def flow_loss(
    model: Transformer,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    latents: Latents,
    device: str,
) -> Callable[[int], dict[str, Tensor]]:
    """The loss of a step, which depends on the step's number alone."""
    fills = isinstance(model, WanVACETransformer3DModel)
    shift = VACE_SHIFT if fills else TEXT_TO_VIDEO_SHIFT
    mean, std = latent_statistics(vae)
    metric = pixel_metric(vae, (latents[BUCKETS[0].name]["target"][:8].float() - mean) / std)
    metric = metric.to(device)
    grey = {b.name: (_grey_latents(vae, b) - mean) / std for b in BUCKETS} if fills else {}
    tokens = {b.name: _tokenized(b, len(latents[b.name]["target"])) for b in BUCKETS}

    def loss_at(step: int) -> dict[str, Tensor]:
        draw = draw_batch(step, latents, mean, std, shift)
        rows = {name: part[draw.picks] for name, part in latents[draw.bucket.name].items()}
        inputs, inside = {"hidden_states": draw.noisy}, rows["objects"]
        if fills:
            mask = unpack_mask(rows["mask"])
            parts = [(rows["inactive"].float() - mean) / std, grey[draw.bucket.name], mask.float()]
            parts = [part.expand(len(mask), -1, -1, -1, -1) for part in parts]
            inputs["control_hidden_states"], inside = torch.cat(parts, dim=1), mask.any(dim=1)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        shown, length = tokens[draw.bucket.name][draw.picks], _padded_length(step, draw.bucket)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            inputs["encoder_hidden_states"] = encode_text(text_encoder, shown, draw.keep, length)
            inputs["timestep"] = draw.sigma.to(device) * 1000
            velocity = model(return_dict=False, **inputs)[0]
        error = velocity.float() - (draw.noise - draw.clean).to(device)
        weight = 1 + ((INSIDE_WEIGHT if fills else OBJECT_WEIGHT) - 1) * inside.float().to(device)
        by_token = torch.einsum("bcfhw,cd,bdfhw->bfhw", error, metric, error) / error.shape[1]
        loss = (by_token * weight).mean() / weight.mean()
        return {"loss": loss, "vace" if fills else "t2v": error.square().mean()}

    return loss_at


def draw_batch(step: int, latents: Latents, mean: Tensor, std: Tensor, shift: float) -> Draw:
    """The clips and noise of a step, from the step's number alone.

    The noise levels are spread evenly over the batch, then shifted as a scheduler does.
    """
    generator = torch.Generator().manual_seed(step)
    shares = torch.tensor([b.share for b in BUCKETS])
    bucket = BUCKETS[int(torch.multinomial(shares, 1, generator=generator))]
    targets = latents[bucket.name]["target"]
    picks = torch.randint(len(targets), (bucket.batch,), generator=generator)
    clean = (targets[picks].float() - mean) / std
    noise = torch.randn(clean.shape, generator=generator)
    u = torch.arange(bucket.batch) + torch.rand(bucket.batch, generator=generator)
    u = u / bucket.batch
    keep = torch.rand(bucket.batch, generator=generator) >= CAPTION_DROPOUT
    return Draw(bucket, picks, clean, noise, shift * u / (1 + (shift - 1) * u), keep)


@torch.no_grad()
def pixel_metric(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """How errors in the channels of normalised latents [B, C, f, h, w] show in pixels, [C, C].

    The decoder's answers to one small noise put into each channel in turn, multiplied pairwise:
    `e @ metric @ e` of a latent error e is near to its error in pixels. The channels differ by a
    factor of 60. Scaled to a trace of C, and mixed with the identity so that every channel counts.
    """
    mean, std = latent_statistics(vae)
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(latents[:, :1].shape, generator=generator)
    channels = latents.shape[1]

    def decoded(z: Tensor) -> Tensor:
        return vae.decode((z * std + mean).to(vae.device)).sample.float().cpu().flatten()

    base = decoded(latents)
    answers = []
    for channel in range(channels):
        moved = latents.clone()
        moved[:, channel : channel + 1] += noise
        answers.append(decoded(moved) - base)
    answers = torch.stack(answers)
    metric = answers @ answers.T
    metric = metric * channels / metric.trace()
    return PIXEL_SHARE * metric + (1 - PIXEL_SHARE) * torch.eye(channels)


@torch.no_grad()
def _grey_latents(vae: AutoencoderKLWan, bucket: Bucket) -> Tensor:
    grey = torch.zeros(1, 3, bucket.frames, bucket.height, bucket.width, device=vae.device)
    return vae.encode(grey).latent_dist.mode().cpu()


def _tokenized(bucket: Bucket, clips: int) -> Tensor:
    prompts = [edit.prompt for edit in bucket.edits(range(clips))]
    padding = dict(padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
    return build_tokenizer()(prompts, **padding).input_ids


def _padded_length(step: int, bucket: Bucket) -> int:
    """Mostly short; sometimes as long as pipelines pad, so that padding means nothing."""
    if bucket is not BUCKETS[0] or step % 20:
        return TEXT_LENGTH
    return 512 if step % 40 else 64


@torch.no_grad()
def encode_text(encoder: UMT5EncoderModel, tokens: Tensor, keep: Tensor, length: int) -> Tensor:
    """Embeddings as the Wan pipelines make them: padding is zero after the encoder.

    `keep`, bool [B], says which captions stay; the others become the empty one.
    """
    empty = torch.zeros_like(tokens)
    empty[:, 0] = 1
    tokens = torch.where(keep[:, None], tokens, empty).to(encoder.device)
    mask = (tokens != 0).long()
    embeds = encoder(tokens, mask).last_hidden_state * mask[..., None]
    return F.pad(embeds, (0, 0, 0, length - embeds.shape[1]))
