"""Wan 2.1 text-to-video, on diffusers' own WanPipeline.

Nothing but the lock ties a text-to-video model's edit to the source, so its background latents are
anchored.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, WanPipeline
from torch import Tensor

from kvlock.backbones.families import recognised_pipe
from kvlock.backbones.placement import Placement
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite, attached
from kvlock.backbones.wan.packing import packed_forward, rotate
from kvlock.contract.backbone import Flow, PackedBranch
from kvlock.contract.tap import Tap
from kvlock.contract.types import EditRequest, Prompt


class WanBackbone:
    """A loaded WanPipeline as the core's Backbone; `spec` is its family's row.

    max_sequence_length: text tokens, the family's where it is not given. Without a placement the
    pipeline's parts are left where they are.
    """

    def __init__(
        self,
        pipe: WanPipeline,
        max_sequence_length: int | None = None,
        placement: Placement | None = None,
    ):
        self.pipe, self.spec = pipe, recognised_pipe(pipe)
        self.placement = placement or Placement(pipe)
        self.max_sequence_length = max_sequence_length or self.spec.max_sequence_length
        self.vae_stride = vae_stride(pipe.vae)
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len

    @property
    def needs_anchor(self) -> bool:
        """Whether nothing but the lock ties the edit to the source."""
        return not self.spec.takes_control

    @property
    def device(self) -> torch.device:
        """Where computation happens; not where all the weights are."""
        return self.placement.device

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> normalised latents float32 [B, C, F, H, W], the posterior's mode."""
        self.placement.need("vae")
        return encode_video(self.pipe.vae, video, self.device)

    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents -> uint8 [B, F, H, W, 3]."""
        self.placement.need("vae")
        return decode_video(self.pipe.vae, latents)

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """One part, [B, L, D]."""
        self.placement.need("text_encoder")
        return encode_prompt(self.pipe, prompts, self.max_sequence_length, self.device)

    def condition(self, requests: Sequence[EditRequest]) -> None:
        """A text-to-video model sees nothing else."""
        return None

    def sampler(self, num_inference_steps: int, multistep: bool) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler."""
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        self.placement.need("transformer")
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
        self.placement.need("transformer")
        return packed_forward(self.pipe.transformer, branches, timestep, flow)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, Tensor | None]:
        """Latents, a prompt and a condition of random numbers, to count and to time forwards with."""
        transformer, device = self.pipe.transformer, self.device
        latents = torch.randn(clips, transformer.config.in_channels, *latent_size, device=device)
        size = (clips, self.max_sequence_length, transformer.config.text_dim)
        words = torch.randn(size, device=device, dtype=transformer.dtype)
        return latents, Prompt((words,)), None

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
    """uint8 [B, F, H, W, 3] -> float32 [B, 3, F, H, W] in [-1, 1], as diffusers' processor does it."""
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


def encode_prompt(
    pipe: DiffusionPipeline, prompts: list[str], max_sequence_length: int, device: torch.device
) -> Prompt:
    """The pipeline's own text encoding, one prompt at a time."""
    settings: dict[str, Any] = dict(
        do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=device
    )
    return Prompt((torch.cat([pipe.encode_prompt(p, **settings)[0] for p in prompts]),))


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
