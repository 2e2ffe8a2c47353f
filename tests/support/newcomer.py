"""A family as somebody would add it: one adapter, one row, in place of kvlock's own for the class.

SkyReels V2 has classes of its own in diffusers and shares Wan's VAE and text encoder. Here it comes
without packed forwards.
"""

from typing import Any

import torch
from diffusers import SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel
from torch import Tensor, nn

from kvlock.backbones.adapter import Adapter, statistics
from kvlock.backbones.families import FAMILIES
from kvlock.backbones.family import Depth, Family
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.types import Prompt
from support import tiny

ROW = Family(
    "newcomer",
    pipeline="SkyReelsV2Pipeline",
    transformer="SkyReelsV2Transformer3DModel",
    vae="AutoencoderKLWan",
    text_encoder="UMT5EncoderModel",
    adapter="support.newcomer:Newcomer",
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
ROWS = (*(row for row in FAMILIES if row.pipeline != ROW.pipeline), ROW)


class Newcomer(Adapter):
    """A loaded SkyReelsV2Pipeline as the core's Backbone."""

    def read_sizes(self) -> None:
        """The VAE's stride and the transformer's patches, by their configs."""
        pipe = self.pipe
        space = pipe.vae.config.scale_factor_spatial
        self.vae_stride = pipe.vae.config.scale_factor_temporal, space, space
        self.patch_size = tuple(pipe.transformer.config.patch_size)
        self.max_tokens_per_axis = pipe.transformer.config.rope_max_seq_len

    def normalised(self, latents: Tensor) -> Tensor:
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return (latents - mean) * inverse_std

    def denormalised(self, latents: Tensor) -> Tensor:
        mean, inverse_std = statistics(self.pipe.vae.config, latents.device)
        return latents / inverse_std + mean

    def encode_one(self, prompt: str) -> tuple[Tensor, ...]:
        return self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            device=self.device,
        )[:1]

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        transformer = self.active(timestep)
        words = prompt.parts[0].to(transformer.dtype)
        times = timestep.to(latents.device)
        return transformer(latents.to(transformer.dtype), times, words, return_dict=False)[
            0
        ].float()

    def random_inputs(self, clips: int, latent_size: tuple[int, int, int]) -> Any:
        architecture = self.pipe.transformer.config
        latents = torch.randn(clips, architecture.in_channels, *latent_size, device=self.device)
        words = (clips, self.max_sequence_length, architecture.text_dim)
        return latents, Prompt((torch.randn(words, device=self.device),)), None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        blocks = enumerate(transformer.blocks)
        return [AttentionSite(f"blocks.{i}.attn1", block.attn1) for i, block in blocks]


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
