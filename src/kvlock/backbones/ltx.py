"""LTX-Video on diffusers' own LTXPipeline: packed tokens, a VAE of 8x32, the rate in the positions."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.backbone import Size
from kvlock.contract.types import EditRequest, Prompt

RATE = 25.0  # frames a second, the pipeline's own where the clip's is not known


class LTXBackbone(Adapter):
    """A loaded LTXPipeline as the core's Backbone."""

    prompt_parts = 2

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        space, config = pipe.vae_spatial_compression_ratio, pipe.transformer.config
        self.vae_stride = pipe.vae_temporal_compression_ratio, space, space
        self.patch_size = config.patch_size_t, config.patch_size, config.patch_size
        self.max_tokens_per_axis = pipe.transformer.rope.base_width // space

    def normalised(self, latents: Tensor) -> Tensor:
        """By the VAE's own statistics."""
        vae = self.pipe.vae
        scale = vae.config.scaling_factor
        return self.pipe._normalize_latents(latents, vae.latents_mean, vae.latents_std, scale)

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        vae = self.pipe.vae
        scale = vae.config.scaling_factor
        return self.pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, scale)

    def decoded(self, latents: Tensor) -> Tensor:
        """Without noise, at timestep 0 where the decoder has one."""
        timed = self.pipe.vae.config.timestep_conditioning
        time = latents.new_zeros(1) if timed else None
        return self.pipe.vae.decode(latents, time, return_dict=False)[0]

    def condition(self, requests: Sequence[EditRequest]) -> Tensor:
        """Each clip's frames a second, [B, 1]."""
        return torch.tensor([[request.fps or RATE] for request in requests], dtype=torch.float64)

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler, whose shift grows with the clip's tokens."""
        config = self.pipe.scheduler.config
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        tokens = least
        if latent_size:
            tokens = int(np.prod([n // p for n, p in zip(latent_size, self.patch_size)]))
        shifts = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        levels = dict(
            sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps),
            mu=calculate_shift(tokens, least, most, *shifts),
        )
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep, levels=levels)

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor | None
    ) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        assert condition is not None
        transformer = self.active(timestep)
        space, time = self.patch_size[1], self.patch_size[0]
        frames, height, width = (n // p for n, p in zip(latents.shape[2:], self.patch_size))
        stride, *strides = self.vae_stride
        seconds = (stride / condition).float().view(-1, 1, 1, 1, 1)
        words, which = prompt.parts
        packed = transformer(
            hidden_states=self.pipe._pack_latents(latents, space, time).to(transformer.dtype),
            encoder_hidden_states=words.to(transformer.dtype),
            timestep=timestep.to(latents.device, non_blocking=True),
            encoder_attention_mask=which,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(seconds.to(latents.device, non_blocking=True), *strides),
            return_dict=False,
        )[0].float()
        return self.pipe._unpack_latents(packed, frames, height, width, space, time)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, Tensor | None]:
        """Latents, a prompt and a condition of random numbers, to count and to time forwards with."""
        config, device = self.pipe.transformer.config, self.device
        latents = torch.randn(clips, config.in_channels, *latent_size, device=device)
        size = clips, self.max_sequence_length
        words = torch.randn(*size, config.caption_channels, device=device)
        which = torch.ones(size, device=device, dtype=torch.bool)
        return latents, Prompt((words, which)), torch.full((clips, 1), RATE, dtype=torch.float64)

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """`transformer_blocks.*.attn1`."""
        return [
            AttentionSite(f"transformer_blocks.{i}.attn1", block.attn1)
            for i, block in enumerate(transformer.transformer_blocks)
        ]
