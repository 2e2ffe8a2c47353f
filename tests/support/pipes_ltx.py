"""Tiny random pipelines of LTX-Video and LTX-2."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from kvlock.contract.types import EditRequest
from support import tiny
from support.tiny_family import quiet


def ltx() -> LTXPipeline:
    torch.manual_seed(6)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=tiny.TEXT_DIM,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=2,
    )
    vae.latents_mean += 0.01 * torch.arange(8)
    vae.latents_std += 0.01 * torch.arange(8)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=4,
        max_image_seq_len=96,
        shift_terminal=0.1,
    )
    return quiet(
        LTXPipeline(scheduler, vae.eval(), tiny.t5_encoder(), tiny.tokenizer(), transformer.eval())
    )


def unpacked(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    return latents.transpose(1, 2).reshape(shape)


def _gemma() -> Gemma3ForConditionalGeneration:
    torch.manual_seed(0)
    words = dict(
        vocab_size=len(tiny.WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    images = dict(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=28,
        patch_size=14,
    )
    config = Gemma3Config(text_config=words, vision_config=images, mm_tokens_per_image=1)
    return Gemma3ForConditionalGeneration(config).eval()


def ltx2() -> LTX2Pipeline:
    torch.manual_seed(11)
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        vae_scale_factors=(4, 4, 4),
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=32,
        rope_double_precision=False,
        rope_type="split",
    ).eval()
    connector: dict[str, Any] = dict(
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_learnable_registers=None,
    )
    both = {f"{s}_connector_{n}": v for s in ("video", "audio") for n, v in connector.items()}
    connectors = LTX2TextConnectors(
        caption_channels=32,
        text_proj_in_factor=3,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
        **both,
    ).eval()
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False, False, False),
        downsample_type=("spatiotemporal", "spatiotemporal"),
        upsample_type=("spatiotemporal", "spatiotemporal"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        patch_size=1,
        decoder_causal=False,
    ).eval()
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1, 1, 1),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mel_bins=8,
    ).eval()
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
    ).eval()
    return quiet(
        LTX2Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=vae,
            audio_vae=audio_vae,
            text_encoder=_gemma(),
            tokenizer=tiny.tokenizer(),
            connectors=connectors,
            transformer=transformer,
            vocoder=vocoder,
        )
    )


@contextmanager
def in_silence(pipe: Any, request: EditRequest) -> Iterator[None]:
    """The stock loop with noised silence in place of the sound that it makes."""
    forward, vae = pipe.transformer.forward, pipe.audio_vae

    def heard(*, audio_hidden_states: Tensor, **inputs: Any) -> Any:
        length = audio_hidden_states.shape[1]
        mel = torch.full((1, 2, 4 * length, vae.config.mel_bins), math.log(1e-5))
        latents = vae.encode(mel).latent_dist.mode()[:, :, :length]
        silence = latents.transpose(1, 2).flatten(2)[0]
        noise = torch.randn(silence.shape, generator=torch.Generator().manual_seed(request.seed))
        level = inputs["timestep"][0].item() / 1000
        audio = ((1 - level) * silence + level * noise).expand(len(audio_hidden_states), -1, -1)
        return forward(audio_hidden_states=audio, **inputs)

    pipe.transformer.forward = heard
    try:
        yield
    finally:
        del pipe.transformer.forward
