"""Tiny random pipelines of CogVideoX and Mochi."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLMochi,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from torch import Tensor

from support import tiny
from support.tiny_family import TEXT_LENGTH, quiet


def cogvideox(**changes: Any) -> CogVideoXPipeline:
    torch.manual_seed(7)
    settings: dict[str, Any] = dict(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=tiny.TEXT_DIM,
        num_layers=2,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        max_text_seq_length=TEXT_LENGTH,
    )
    transformer = CogVideoXTransformer3DModel(**settings | changes).eval()
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    ).eval()
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return quiet(
        CogVideoXPipeline(tiny.tokenizer(), tiny.t5_encoder(), vae, transformer, scheduler)
    )


def cogvideox_5b() -> CogVideoXPipeline:
    return cogvideox(use_rotary_positional_embeddings=True)


def cogvideox_15() -> CogVideoXPipeline:
    return cogvideox(use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False)


def pairs(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Frames before channels and one by one -> pairs of frames as channels."""
    return latents.unflatten(1, (-1, 2)).permute(0, 3, 2, 1, 4, 5).reshape(shape)


def one_by_one(latents: Tensor) -> Tensor:
    return latents.unflatten(1, (-1, 2)).permute(0, 3, 2, 1, 4, 5).flatten(1, 2)


def mochi() -> MochiPipeline:
    torch.manual_seed(8)
    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=tiny.TEXT_DIM,
        time_embed_dim=4,
        max_sequence_length=TEXT_LENGTH,
    ).eval()
    torch.nn.init.normal_(transformer.pos_frequencies)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return quiet(MochiPipeline(scheduler, vae, tiny.t5_encoder(), tiny.tokenizer(), transformer))
