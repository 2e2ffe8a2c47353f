"""CogVideoX on diffusers' own CogVideoXPipeline: v-prediction, text tokens in the same attention.

1.5 takes latent frames in pairs, with the first one twice. To the core a pair is one latent of
twice the channels, so that eight frames share a token and a place in the mask.
"""

import torch
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter
from kvlock.backbones.diffusion import DiffusionSampler
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.backbone import Size
from kvlock.contract.types import Prompt

ENDLESS = 2**16  # tokens on an axis: positions of 1.0 are scaled to the trained size


class CogVideoXBackbone(Adapter):
    """A loaded CogVideoXPipeline as the core's Backbone."""

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        config, space = pipe.transformer.config, pipe.vae_scale_factor_spatial
        self.max_sequence_length = config.max_text_seq_length  # its positions have no other
        self._together = config.patch_size_t or 1
        self.vae_stride = pipe.vae_scale_factor_temporal * self._together, space, space
        self.patch_size = 1, config.patch_size, config.patch_size
        trained = min(config.sample_height, config.sample_width) // config.patch_size
        self.max_tokens_per_axis = trained if config.patch_size_t else ENDLESS

    def normalised(self, latents: Tensor) -> Tensor:
        """By the VAE's factor; frames put together, the first as often as it takes."""
        first = latents[:, :, :1].expand(-1, -1, -latents.shape[2] % self._together, -1, -1)
        padded = torch.cat([first, latents], dim=2) * self.pipe.vae_scaling_factor_image
        return padded.unflatten(2, (-1, self._together)).transpose(2, 3).flatten(1, 2)

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        padded = self._apart(latents)[:, :, self._together - 1 :]
        return 1 / self.pipe.vae_scaling_factor_image * padded

    def _apart(self, latents: Tensor) -> Tensor:
        """[B, C * together, F, H, W] -> [B, C, F * together, H, W]."""
        return latents.unflatten(1, (-1, self._together)).transpose(2, 3).flatten(2, 3)

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> DiffusionSampler:
        """A fresh one on the checkpoint's schedule."""
        return DiffusionSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """v, float32 [B, C, F, H, W]."""
        transformer, space = self.active(timestep), self.vae_stride[1]
        frames = self._apart(latents).transpose(1, 2)
        count, height, width = frames.shape[1], frames.shape[3] * space, frames.shape[4] * space
        rotary = None
        if transformer.config.use_rotary_positional_embeddings:
            rotary = self.pipe._prepare_rotary_positional_embeddings(
                height, width, count, latents.device
            )
        v = transformer(
            hidden_states=frames.to(transformer.dtype),
            encoder_hidden_states=prompt.parts[0].to(transformer.dtype),
            timestep=timestep.to(latents.device, non_blocking=True),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0].float()
        return v.unflatten(1, (-1, self._together)).permute(0, 3, 2, 1, 4, 5).flatten(1, 2)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, None]:
        """Latents and a prompt of random numbers, to count and to time forwards with."""
        config, device = self.pipe.transformer.config, self.device
        channels = config.in_channels * self._together
        latents = torch.randn(clips, channels, *latent_size, device=device)
        words = (clips, self.max_sequence_length, config.text_embed_dim)
        return latents, Prompt((torch.randn(words, device=device),)), None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """`transformer_blocks.*.attn1`; text before the video, keys as [B, heads, S, D]."""
        return [
            AttentionSite(f"transformer_blocks.{i}.attn1", block.attn1, key_axis=2, text="before")
            for i, block in enumerate(transformer.transformer_blocks)
        ]
