"""Wan 2.1 VACE, masked video-to-video, on diffusers' own WanVACEPipeline.

Control = latents of the clip with the mask greyed out + latents of what is inside (grey) + the unshuffled mask.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from diffusers import WanVACEPipeline
from torch import Tensor

from kvlock.backbones.wan import t2v
from kvlock.backbones.wan.packing import packed_forward
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite, attached
from kvlock.core.protocols import Flow, PackedBranch
from kvlock.core.tap import Tap
from kvlock.core.types import EditRequest, Prompt


class WanVACEBackbone:
    """A loaded WanVACEPipeline as the core's Backbone."""

    needs_anchor = False

    def __init__(self, pipe: WanVACEPipeline, max_sequence_length: int = 512):
        # The pipeline derives this from the number of downsampling layers, wrong for VAEs that unshuffle pixels first.
        pipe.vae_scale_factor_spatial = pipe.vae.config.scale_factor_spatial
        self.pipe = pipe
        self.max_sequence_length = max_sequence_length
        self.vae_stride = t2v.vae_stride(pipe.vae)
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len

    @property
    def device(self) -> torch.device:
        """Where computation happens; with offload not where the weights are."""
        return self.pipe._execution_device

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> normalised latents float32 [B, C, F, H, W], the posterior's mode."""
        return t2v.encode_video(self.pipe.vae, video, self.device)

    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents -> uint8 [B, F, H, W, 3]."""
        return t2v.decode_video(self.pipe.vae, latents)

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """One part, [B, L, D]."""
        return t2v.encode_prompt(self.pipe, prompts, self.max_sequence_length)

    def condition(self, requests: Sequence[EditRequest]) -> Tensor:
        """The control, [B, 32 + 64, F, H, W], prepared by the pipeline as the checkpoint was trained.

        The inside of the mask is grey, as in VACE's own inpainting: the model is not shown what it is to replace.
        """
        controls = []
        for request in requests:
            pixels = t2v.to_pixels(request.video[None], self.device)[0]
            inside = request.mask.to(self.device).float()[None]
            grey = (pixels * (1 - inside))[None]
            latents = self.pipe.prepare_video_latents(grey, inside[None], [[]], device=self.device)
            controls.append(
                torch.cat([latents, self.pipe.prepare_masks(inside[None], [[]])], dim=1)
            )
        return torch.cat(controls)

    def sampler(self, num_inference_steps: int, multistep: bool) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler."""
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor
    ) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer = self.pipe.transformer
        return transformer(
            hidden_states=latents.to(transformer.dtype),
            timestep=timestep,
            encoder_hidden_states=prompt.parts[0].to(transformer.dtype),
            control_hidden_states=condition.to(transformer.dtype),
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
        """The trunk's self-attention layers and the control stream's."""
        return t2v.attention_sites(self.pipe.transformer)
