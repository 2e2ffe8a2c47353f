"""Tiny random pipelines of Wan 2.1, 2.2, VACE and SkyReels-V2."""

from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)

from kvlock.contract.types import EditRequest
from support import tiny
from support.tiny_family import quiet


def _wan(pipeline: Any, transformers: dict[str, Any], vae: Any = None, **settings: Any) -> Any:
    return quiet(
        pipeline(
            tokenizer=tiny.tokenizer(),
            text_encoder=tiny.text_encoder(),
            vae=vae or tiny.vae(),
            scheduler=tiny.scheduler(),
            **transformers,
            **settings,
        )
    )


def _trunk(seed: int, cls: Any = WanTransformer3DModel, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(**dict(num_layers=2) | tiny.TRANSFORMER | changes).eval()


def _vace(seed: int) -> Any:
    more = dict(num_layers=3, vace_layers=[0, 2], vace_in_channels=96)
    return _trunk(seed, WanVACETransformer3DModel, **more)


def two_experts() -> WanPipeline:
    experts = {"transformer": _trunk(2), "transformer_2": _trunk(12)}
    return _wan(WanPipeline, experts, boundary_ratio=0.7)


def two_vace_experts() -> WanVACEPipeline:
    experts = {"transformer": _vace(3), "transformer_2": _vace(13)}
    return _wan(WanVACEPipeline, experts, boundary_ratio=0.7)


def _vae_16() -> AutoencoderKLWan:
    torch.manual_seed(1)
    return AutoencoderKLWan(
        base_dim=3,
        decoder_base_dim=4,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.01 * i for i in range(48)],
        latents_std=[1 + 0.01 * i for i in range(48)],
    ).eval()


def ti2v() -> WanPipeline:
    trunk = _trunk(5, in_channels=48, out_channels=48)
    return _wan(WanPipeline, {"transformer": trunk}, _vae_16(), expand_timesteps=True)


def control(request: EditRequest) -> dict[str, Any]:
    """VACE's own preparation, from the clip greyed out inside the mask."""
    video = request.video.numpy() / np.float32(255)
    video[request.mask.numpy()] = 0.5
    mask = np.repeat(request.mask.numpy()[..., None], 3, axis=-1).astype(np.float32)
    return dict(video=[video], mask=[mask])


def skyreels() -> SkyReelsV2Pipeline:
    return _wan(SkyReelsV2Pipeline, {"transformer": _trunk(4, SkyReelsV2Transformer3DModel)})
