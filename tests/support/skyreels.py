"""A family that kvlock does not know, as somebody would add it: one adapter, one row.

SkyReels V2 has classes of its own in diffusers and shares Wan's VAE and text encoder. It comes
without packed forwards.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel
from torch import Tensor

from kvlock.backbones.families import recognised_pipe
from kvlock.backbones.family import Depth, Family
from kvlock.backbones.placement import Placement
from kvlock.backbones.sampler import FlowSampler
from kvlock.backbones.seam import AttentionSite, attached
from kvlock.backbones.wan import t2v
from kvlock.contract.tap import Tap
from kvlock.contract.types import EditRequest, Prompt
from support import tiny

ROW = Family(
    "skyreels",
    pipeline="SkyReelsV2Pipeline",
    transformer="SkyReelsV2Transformer3DModel",
    vae="AutoencoderKLWan",
    text_encoder="UMT5EncoderModel",
    adapter="support.skyreels:SkyReelsBackbone",
    takes_control=False,
    depth=Depth("num_layers"),
    published={"text_dim": tiny.TEXT_DIM},
    size=(32, 48),
    max_frames=9,
    fps=24,
    negative_prompt="a blue dog",
    flow_shifts={(32, 48): 8.0, (64, 96): 12.0},
    max_sequence_length=8,
    options={"guidance_scale": 6.0},
)


class SkyReelsBackbone:
    """A loaded SkyReelsV2Pipeline as the core's Backbone."""

    def __init__(
        self,
        pipe: Any,
        max_sequence_length: int | None = None,
        placement: Placement | None = None,
    ):
        self.pipe, self.spec = pipe, recognised_pipe(pipe)
        self.placement = placement or Placement(pipe)
        self.max_sequence_length = max_sequence_length or self.spec.max_sequence_length
        self.vae_stride = t2v.vae_stride(pipe.vae)
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len
        self.needs_anchor = not self.spec.takes_control

    @property
    def device(self) -> torch.device:
        return self.placement.device

    def encode_video(self, video: Tensor) -> Tensor:
        self.placement.need("vae")
        return t2v.encode_video(self.pipe.vae, video, self.device)

    def decode_video(self, latents: Tensor) -> Tensor:
        self.placement.need("vae")
        return t2v.decode_video(self.pipe.vae, latents)

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        self.placement.need("text_encoder")
        return t2v.encode_prompt(self.pipe, prompts, self.max_sequence_length, self.device)

    def condition(self, requests: Sequence[EditRequest]) -> None:
        return None

    def sampler(self, num_inference_steps: int, multistep: bool) -> FlowSampler:
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep)

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        self.placement.need("transformer")
        transformer = self.pipe.transformer
        words = prompt.parts[0].to(transformer.dtype)
        latents = latents.to(transformer.dtype)
        return transformer(latents, timestep, words, return_dict=False)[0].float()

    def tapped(
        self, tap: Tap, timestep: Tensor, control: bool = False
    ) -> AbstractContextManager[None]:
        blocks = enumerate(self.pipe.transformer.blocks)
        return attached(tap, [AttentionSite(f"blocks.{i}.attn1", b.attn1) for i, b in blocks])

    def random_inputs(self, clips: int, latent_size: tuple[int, int, int]) -> Any:
        architecture = self.pipe.transformer.config
        latents = torch.randn(clips, architecture.in_channels, *latent_size, device=self.device)
        words = (clips, self.max_sequence_length, architecture.text_dim)
        return latents, Prompt((torch.randn(words, device=self.device),)), None


def pipe(num_layers: int = 2) -> SkyReelsV2Pipeline:
    """Tiny and random."""
    torch.manual_seed(4)
    transformer = SkyReelsV2Transformer3DModel(num_layers=num_layers, **tiny.TRANSFORMER).eval()
    made = SkyReelsV2Pipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=tiny.text_encoder(),
        transformer=transformer,
        vae=tiny.vae(),
        scheduler=tiny.scheduler(),
    )
    made.set_progress_bar_config(disable=True)
    return made
