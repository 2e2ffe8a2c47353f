"""A model's architecture without its weights: on the meta device to count costs, elsewhere random to time them."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)

from kvlock.backbones.known_models import known_model
from kvlock.backbones.loading import model_source, pipeline_name
from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.backbones.wan.vace import WanVACEBackbone

CLASSES: dict[str, Any] = {
    "wan": (WanTransformer3DModel, WanPipeline, WanBackbone),
    "wan-vace": (WanVACETransformer3DModel, WanVACEPipeline, WanVACEBackbone),
}


def skeleton(model: str, device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> WanBackbone | WanVACEBackbone:
    """The backbone of `model` without its text encoder. Only configs are read, and of a known model's not even those.

    Raises ValueError for a model that `load_backbone` would not take either.
    """
    known = known_model(model)
    if known and not known.packaged:
        return assembled(known.family, known.architecture, {}, device, dtype)
    source = model_source(model)
    family = {"WanPipeline": "wan", "WanVACEPipeline": "wan-vace"}[pipeline_name(model, source)]
    where = {"local_files_only": Path(source).is_dir()}
    transformer = CLASSES[family][0].load_config(source, subfolder="transformer", **where)
    vae = AutoencoderKLWan.load_config(source, subfolder="vae", **where)
    backbone = assembled(family, dict(transformer), dict(vae), device, dtype)
    backbone.max_sequence_length = known.max_sequence_length if known else backbone.max_sequence_length
    return backbone


def assembled(
    family: str, transformer: dict[str, Any], vae: dict[str, Any], device: str, dtype: torch.dtype
) -> WanBackbone | WanVACEBackbone:
    """Models of these configs, with the weights that their classes draw; none on the meta device."""
    transformer_class, pipeline_class, backbone_class = CLASSES[family]
    before = torch.get_default_dtype()
    try:
        with torch.device(device):
            codec = AutoencoderKLWan.from_config(vae)
            torch.set_default_dtype(dtype)
            model = transformer_class.from_config(transformer)
    finally:
        torch.set_default_dtype(before)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = pipeline_class(
        tokenizer=None, text_encoder=None, vae=codec.eval(), transformer=model.eval(), scheduler=scheduler
    )
    return backbone_class(pipe)
