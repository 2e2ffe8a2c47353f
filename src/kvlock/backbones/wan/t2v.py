"""Wan text-to-video on diffusers' own WanPipeline: 2.1, 2.2 A14B with its two experts, 2.2 TI2V-5B.

Nothing but the lock ties a text-to-video model's edit to the source, so its background latents are
anchored.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter, statistics
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite
from kvlock.backbones.wan.packing import packed_forward, rotate
from kvlock.contract.backbone import Flow, PackedBranch, Size
from kvlock.contract.types import Prompt


class WanBackbone(Adapter):
    """A loaded WanPipeline as the core's Backbone."""

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        space = pipe.vae.config.scale_factor_spatial
        self.vae_stride = pipe.vae.config.scale_factor_temporal, space, space
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len
        ratio = pipe.config.get("boundary_ratio") or 0.0
        self._boundary = ratio * pipe.scheduler.config.num_train_timesteps
        self._per_token = bool(pipe.config.get("expand_timesteps"))

    def normalised(self, latents: Tensor) -> Tensor:
        """By the VAE's own statistics."""
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return (latents - mean) * inverse_std

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return latents / inverse_std + mean

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> FlowSampler:
        """A fresh one on the checkpoint's scheduler."""
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep, self._boundary)

    def expert(self, timestep: Tensor) -> str:
        """Of two, the second takes over below the boundary."""
        first = not self._boundary or float(timestep.flatten()[0]) >= self._boundary
        return "transformer" if first else "transformer_2"

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor | None
    ) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer = self.active(timestep)
        return transformer(
            hidden_states=latents.to(transformer.dtype),
            timestep=self._times(latents, timestep),
            encoder_hidden_states=prompt.parts[0].to(transformer.dtype),
            return_dict=False,
            **self._shown(condition, transformer.dtype),
        )[0].float()

    def _shown(self, condition: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
        """What the transformer gets besides."""
        return {}

    def _times(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """[B] or, where the checkpoint has one for every token, [B, L]; the source is no given frame."""
        timestep = timestep.to(latents.device, non_blocking=True)
        if not self._per_token:
            return timestep
        _, height, width = self.patch_size
        tokens = latents[0, 0, :, ::height, ::width].numel()
        return timestep.float()[:, None].expand(-1, tokens)

    def predict_packed(
        self, branches: Sequence[PackedBranch], timestep: Tensor, flow: Flow
    ) -> list[Tensor]:
        """The velocities of branches of any length, float32 [1, C, F, H, W] each.

        One timestep for all tokens, whatever the checkpoint; equal to one each up to rounding.
        """
        return packed_forward(self.active(timestep), branches, timestep, flow)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, Tensor | None]:
        """Latents, a prompt and a condition of random numbers, to count and to time forwards with."""
        transformer, device = self.pipe.transformer, self.device
        latents = torch.randn(clips, transformer.config.in_channels, *latent_size, device=device)
        size = (clips, self.max_sequence_length, transformer.config.text_dim)
        words = torch.randn(size, device=device, dtype=transformer.dtype)
        return latents, Prompt((words,)), None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """`blocks.*.attn1` and a VACE model's control stream, `vace_blocks.*.attn1`."""
        return attention_sites(transformer)


def attention_sites(transformer: nn.Module) -> list[AttentionSite]:
    """`blocks.*.attn1` and a VACE model's control stream, `vace_blocks.*.attn1`."""
    rotation = partial(rotate, transformer.config.attention_head_dim)
    return [
        AttentionSite(
            f"{name}.{i}.attn1", block.attn1, control=name == "vace_blocks", rotate=rotation
        )
        for name in ("blocks", "vace_blocks")
        for i, block in enumerate(getattr(transformer, name, []))
    ]
