"""Mochi on diffusers' own MochiPipeline: time runs from noise 0 to clean 1, a VAE of 6x8."""

import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter, statistics
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.backbone import Size
from kvlock.contract.types import Prompt

THRESHOLD_NOISE = 0.025  # of the pipeline's schedule
ENDLESS = 2**16  # tokens on an axis: positions are scaled to a fixed area


class ReversedFlowSampler(FlowSampler):
    """A flow whose scheduler counts from noise 0 to clean 1; here noise is 1 as everywhere.

    A prediction is noise minus clean, the opposite of what the model gives.
    """

    def __init__(self, scheduler: SchedulerMixin, num_inference_steps: int, multistep: bool):
        """Raises ValueError for a scheduler of another kind."""
        if not scheduler.config.get("invert_sigmas"):
            raise ValueError(
                "the scheduler has invert_sigmas=False; expected true, as in Mochi's "
                "scheduler_config.json"
            )
        levels = np.array(linear_quadratic_schedule(num_inference_steps, THRESHOLD_NOISE))
        super().__init__(scheduler, num_inference_steps, multistep, levels={"sigmas": levels})
        self.sigmas = (1 - self._scheduler.sigmas).tolist()
        self.switch = num_inference_steps

    def step(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """z moved to the next level."""
        return super().step(latents, -prediction if self._multistep else prediction, step)

    def timestep(self, step: int) -> Tensor:
        """The model's timestep, 0-dim; the last one is clean."""
        timesteps = self._scheduler.timesteps
        last = torch.full_like(timesteps[0], self._scheduler.config.num_train_timesteps)
        return timesteps[step] if step < len(timesteps) else last


class MochiBackbone(Adapter):
    """A loaded MochiPipeline as the core's Backbone."""

    prompt_parts = 2

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        space, patch = pipe.vae_spatial_scale_factor, pipe.transformer.config.patch_size
        self.vae_stride = pipe.vae_temporal_scale_factor, space, space
        self.patch_size = 1, patch, patch
        self.max_tokens_per_axis = ENDLESS

    def normalised(self, latents: Tensor) -> Tensor:
        """By the VAE's own statistics."""
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return (latents - mean) * inverse_std * self.pipe.vae.config.scaling_factor

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return latents / inverse_std / self.pipe.vae.config.scaling_factor + mean

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> ReversedFlowSampler:
        """A fresh one on the checkpoint's scheduler."""
        return ReversedFlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer = self.active(timestep)
        words, which = prompt.parts
        return -transformer(
            hidden_states=latents.to(transformer.dtype),
            encoder_hidden_states=words.to(transformer.dtype),
            timestep=timestep.to(latents.device, transformer.dtype, non_blocking=True),
            encoder_attention_mask=which,
            return_dict=False,
        )[0].float()

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, None]:
        """Latents and a prompt of random numbers, to count and to time forwards with."""
        config, device = self.pipe.transformer.config, self.device
        latents = torch.randn(clips, config.in_channels, *latent_size, device=device)
        size = clips, self.max_sequence_length
        words = torch.randn(*size, config.text_embed_dim, device=device)
        which = torch.ones(size, device=device, dtype=torch.bool)
        return latents, Prompt((words, which)), None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """`transformer_blocks.*.attn1`, whose `norm_k` and `to_v` see the video alone."""
        return [
            AttentionSite(f"transformer_blocks.{i}.attn1", block.attn1)
            for i, block in enumerate(transformer.transformer_blocks)
        ]
