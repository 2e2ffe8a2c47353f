"""What the adapters of all families share: a diffusers pipeline as the core's Backbone."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from kvlock.backbones.families import recognised_pipe
from kvlock.backbones.placement import TEXTS, Placement
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite, attached
from kvlock.contract.backbone import Sampler, Size
from kvlock.contract.tap import Tap
from kvlock.contract.types import EditRequest, Prompt


class Adapter:
    """A loaded pipeline; `spec` is its family's row.

    max_sequence_length: text tokens, the family's where it is not given. Without a placement the
    pipeline's parts are left where they are. A family says what is its own: its VAE's stride and
    normalisation, its prompts, its forward, its attention layers.
    """

    vae_stride: tuple[int, int, int]
    patch_size: tuple[int, int, int]
    max_tokens_per_axis: int
    prompt_parts = 1  # words [1, L, D]; of 2, also which of these are words, [1, L]

    def __init__(
        self,
        pipe: Any,
        max_sequence_length: int | None = None,
        placement: Placement | None = None,
    ):
        self.pipe, self.spec = pipe, recognised_pipe(pipe)
        self.placement = placement or Placement(pipe)
        self.max_sequence_length = max_sequence_length or self.spec.max_sequence_length
        self.read_sizes()

    def read_sizes(self) -> None:
        """Set `vae_stride`, `patch_size` and `max_tokens_per_axis` by the pipeline's configs."""
        raise NotImplementedError

    @property
    def flow_matching(self) -> bool:
        """Whether predictions are velocities."""
        return self.spec.flow_matching

    @property
    def embedded_guidance(self) -> bool:
        """Whether guidance is a number that the model reads."""
        return self.spec.embedded_guidance

    @property
    def needs_anchor(self) -> bool:
        """Whether nothing but the lock ties the edit to the source."""
        return not self.spec.takes_control

    @property
    def device(self) -> torch.device:
        """Where computation happens; not where all the weights are."""
        return self.placement.device

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> normalised latents float32 [B, C, F, H, W], the posterior's mode.

        Each clip on its own, so that a clip's latents do not depend on the batch.
        """
        self.placement.need("vae")
        vae = self.pipe.vae
        pixels = to_pixels(video, self.device).to(vae.dtype)
        latents = [vae.encode(clip[None]).latent_dist.mode() for clip in pixels]
        return self.normalised(torch.cat(latents).float())

    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents -> uint8 [B, F, H, W, 3] on the CPU, each clip on its own."""
        self.placement.need("vae")
        scaled = self.denormalised(latents).to(self.pipe.vae.dtype)
        pixels = torch.cat([self.decoded(clip[None]).float().cpu() for clip in scaled])
        return to_bytes(pixels)

    def decoded(self, latents: Tensor) -> Tensor:
        """The VAE's latents of one clip -> its pixels [1, 3, F, H, W]."""
        return self.pipe.vae.decode(latents, return_dict=False)[0]

    def normalised(self, latents: Tensor) -> Tensor:
        """What the VAE gives -> what the transformer takes, [B, C, F, H, W]."""
        raise NotImplementedError

    def denormalised(self, latents: Tensor) -> Tensor:
        """The opposite."""
        raise NotImplementedError

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """The pipeline's own text encoding, one prompt at a time."""
        self.placement.need(*(part for part in self.spec.parts if part in TEXTS))
        return Prompt.stack([Prompt(self.encode_one(prompt)) for prompt in prompts])

    def encode_one(self, prompt: str) -> tuple[Tensor, ...]:
        """The parts of one prompt, [1, ...] each: the first of what the pipeline encodes."""
        return self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            device=self.device,
        )[: self.prompt_parts]

    def condition(self, requests: Sequence[EditRequest]) -> Tensor | None:
        """A text-to-video model sees nothing else."""
        return None

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> Sampler:
        """A fresh one on the checkpoint's scheduler."""
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def active(self, timestep: Tensor) -> Any:
        """The transformer that runs at this timestep, where it runs."""
        name = self.expert(timestep)
        self.placement.need(name)
        return getattr(self.pipe, name)

    def expert(self, timestep: Tensor) -> str:
        """Its name; there is one."""
        return "transformer"

    def tapped(
        self, tap: Tap, timestep: Tensor, control: bool = False
    ) -> AbstractContextManager[None]:
        """The tap attached to the trunk's self-attention and, with `control`, the control stream's.

        Raises ValueError while a step cache is on: it skips blocks, and with them the lock.
        """
        sites = self.attention_sites(timestep)
        return attached(tap, [site for site in sites if control or not site.control])

    def attention_sites(self, timestep: Tensor) -> list[AttentionSite]:
        """The self-attention layers of the expert at this timestep."""
        name = self.expert(timestep)
        transformer = getattr(self.pipe, name)
        if getattr(transformer, "is_cache_enabled", False):
            raise ValueError(
                f"a step cache is enabled on the {name}; call {name}.disable_cache() first"
            )
        return self.sites_of(transformer)

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """The self-attention layers of one transformer."""
        raise NotImplementedError


def to_pixels(video: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, F, H, W, 3] -> float32 [B, 3, F, H, W] in [-1, 1], as diffusers' processor does it."""
    return 2.0 * (video.to(device).permute(0, 4, 1, 2, 3).float() / 255.0) - 1.0


def to_bytes(pixels: Tensor) -> Tensor:
    """float32 [B, 3, F, H, W] in [-1, 1] -> uint8 [B, F, H, W, 3]."""
    return ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1)


def statistics(config: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of a VAE's latents by channel, [1, C, 1, 1, 1]."""
    mean, std = (
        torch.tensor(config[name], device=device, dtype=torch.float32).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return mean, 1.0 / std
