"""Wan 2.1 text-to-video, on diffusers' own WanPipeline.

Nothing but the lock ties a text-to-video model's edit to the source, so it needs its background latents anchored.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, WanPipeline
from torch import Tensor

from kvlock.backbones.wan.packing import packed_forward, rotate
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite, attached
from kvlock.core.protocols import Flow, PackedBranch
from kvlock.core.tap import Tap
from kvlock.core.types import EditRequest, Prompt


class WanBackbone:
    """A loaded WanPipeline as the core's Backbone."""

    needs_anchor = True

    def __init__(self, pipe: WanPipeline, max_sequence_length: int = 512):
        self.pipe = pipe
        self.max_sequence_length = max_sequence_length
        self.vae_stride = vae_stride(pipe.vae)
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len

    @property
    def device(self) -> torch.device:
        """Where computation happens; with offload not where the weights are."""
        return self.pipe._execution_device

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> normalised latents float32 [B, C, F, H, W], the posterior's mode."""
        return encode_video(self.pipe.vae, video, self.device)

    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents -> uint8 [B, F, H, W, 3]."""
        return decode_video(self.pipe.vae, latents)

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """One part, [B, L, D]."""
        return encode_prompt(self.pipe, prompts, self.max_sequence_length)

    def condition(self, requests: Sequence[EditRequest]) -> None:
        """A text-to-video model sees nothing else."""
        return None

    def sampler(self, num_inference_steps: int, multistep: bool) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler."""
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer = self.pipe.transformer
        return transformer(
            hidden_states=latents.to(transformer.dtype),
            timestep=timestep,
            encoder_hidden_states=prompt.parts[0].to(transformer.dtype),
            return_dict=False,
        )[0].float()

    def predict_packed(
        self, branches: Sequence[PackedBranch], timestep: Tensor, flow: Flow
    ) -> list[Tensor]:
        """The velocities of branches of any length, float32 [1, C, F, H, W] each."""
        return packed_forward(self.pipe.transformer, branches, timestep, flow)

    def tapped(
        self, tap: Tap, timestep: Tensor, control: bool = False
    ) -> AbstractContextManager[None]:
        """The tap attached to the trunk's self-attention and, with `control`, the control stream's."""
        sites = self.attention_sites(timestep)
        return attached(tap, [site for site in sites if control or not site.control])

    def attention_sites(self, timestep: Tensor) -> list[AttentionSite]:
        """The self-attention layers, the same at every timestep."""
        return attention_sites(self.pipe.transformer)


def vae_stride(vae: AutoencoderKLWan) -> tuple[int, int, int]:
    """Pixels per latent in time, height and width."""
    space = vae.config.scale_factor_spatial
    return vae.config.scale_factor_temporal, space, space


def to_pixels(video: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, F, H, W, 3] -> float32 [B, 3, F, H, W] in [-1, 1], as diffusers' video processor does it."""
    return 2.0 * (video.to(device).permute(0, 4, 1, 2, 3).float() / 255.0) - 1.0


def encode_video(vae: AutoencoderKLWan, video: Tensor, device: torch.device) -> Tensor:
    """Each clip on its own, so that a clip's latents do not depend on the batch."""
    mean, inverse_std = _latent_statistics(vae, device)
    pixels = to_pixels(video, device).to(vae.dtype)
    latents = torch.cat([vae.encode(clip[None]).latent_dist.mode() for clip in pixels])
    return (latents.float() - mean) * inverse_std


def decode_video(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Each clip on its own; uint8 [B, F, H, W, 3] on the CPU."""
    mean, inverse_std = _latent_statistics(vae, latents.device)
    scaled = (latents / inverse_std + mean).to(vae.dtype)
    pixels = torch.cat(
        [vae.decode(clip[None], return_dict=False)[0].float().cpu() for clip in scaled]
    )
    return ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1)


def encode_prompt(pipe: DiffusionPipeline, prompts: list[str], max_sequence_length: int) -> Prompt:
    """The pipeline's own text encoding, one prompt at a time."""
    embeds = [
        pipe.encode_prompt(
            p, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )[0]
        for p in prompts
    ]
    return Prompt((torch.cat(embeds),))


def attention_sites(transformer: torch.nn.Module) -> list[AttentionSite]:
    """`blocks.*.attn1` and a VACE model's control stream, `vace_blocks.*.attn1`.

    Raises ValueError while a step cache is on: it skips blocks, and with them the lock.
    """
    if transformer.is_cache_enabled:
        raise ValueError(
            "a step cache is enabled on the transformer; call transformer.disable_cache() first"
        )
    rotation = partial(rotate, transformer.config.attention_head_dim)
    return [
        AttentionSite(
            f"{name}.{i}.attn1", block.attn1, control=name == "vace_blocks", rotate=rotation
        )
        for name in ("blocks", "vace_blocks")
        for i, block in enumerate(getattr(transformer, name, []))
    ]


def _latent_statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(vae.config[name], device=device, dtype=torch.float32).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return mean, 1.0 / std
