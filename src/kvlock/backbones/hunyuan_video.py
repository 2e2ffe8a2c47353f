"""HunyuanVideo on diffusers' own HunyuanVideoPipeline.

Guidance is a number that the model reads: there is no unconditional branch, so omega has nothing
to act on, unless a guidance scale above 1 asks for one (the pipeline's `true_cfg_scale`).
"""

import numpy as np
import torch
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.backbone import Size
from kvlock.contract.types import Prompt

EMBEDDED_GUIDANCE = 6.0  # what the model reads, the pipeline's own
ENDLESS = 2**16  # tokens on an axis: positions are computed as they come


class HunyuanBackbone(Adapter):
    """What HunyuanVideo and 1.5 share."""

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        space, config = pipe.vae_scale_factor_spatial, pipe.transformer.config
        self.vae_stride = pipe.vae_scale_factor_temporal, space, space
        self.patch_size = config.patch_size_t, config.patch_size, config.patch_size
        self.max_tokens_per_axis = ENDLESS

    def normalised(self, latents: Tensor) -> Tensor:
        """By the VAE's factor."""
        return latents * self.pipe.vae.config.scaling_factor

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        return latents / self.pipe.vae.config.scaling_factor

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler, from the pipeline's levels."""
        levels = {"sigmas": np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1]}
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep, levels=levels)

    def _latents(self, clips: int, channels: int, latent_size: tuple[int, int, int]) -> Tensor:
        return torch.randn(clips, channels, *latent_size, device=self.device)

    def _words(self, clips: int, length: int, width: int) -> tuple[Tensor, Tensor]:
        words = torch.randn(clips, length, width, device=self.device)
        return words, torch.ones(clips, length, device=self.device)


class HunyuanVideoBackbone(HunyuanBackbone):
    """A loaded HunyuanVideoPipeline as the core's Backbone."""

    def encode_one(self, prompt: str) -> tuple[Tensor, ...]:
        """[1, L, D], a summary [1, P], and which of the first are words [1, L]."""
        return self.pipe.encode_prompt(
            prompt, max_sequence_length=self.max_sequence_length, device=self.device
        )

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer = self.active(timestep)
        dtype, device = transformer.dtype, latents.device
        words, summary, which = (part.to(dtype) for part in prompt.parts)
        guidance = torch.full((len(latents),), EMBEDDED_GUIDANCE, dtype=dtype, device=device)
        return transformer(
            hidden_states=latents.to(dtype),
            timestep=timestep.to(device, non_blocking=True).float(),
            encoder_hidden_states=words,
            encoder_attention_mask=which,
            pooled_projections=summary,
            guidance=guidance * 1000.0,
            return_dict=False,
        )[0].float()

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, None]:
        """Latents and a prompt of random numbers, to count and to time forwards with."""
        config = self.pipe.transformer.config
        words, which = self._words(clips, self.max_sequence_length, config.text_embed_dim)
        summary = torch.randn(clips, config.pooled_projection_dim, device=self.device)
        latents = self._latents(clips, config.in_channels, latent_size)
        return latents, Prompt((words, summary, which)), None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """Dual blocks' keys and values are the video's; in single blocks text follows the video."""
        kinds = (("transformer_blocks", "none"), ("single_transformer_blocks", "after"))
        return [
            AttentionSite(f"{name}.{i}.attn", block.attn, text=text)
            for name, text in kinds
            for i, block in enumerate(getattr(transformer, name))
        ]
