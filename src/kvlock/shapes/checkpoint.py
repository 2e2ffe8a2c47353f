"""The parts of the built-in models, from the real classes, and the folders they are kept in."""

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from kvlock.backbones.calibration import FILE as CALIBRATION
from kvlock.backbones.checkpoints import SHARED, checkpoint_folder
from kvlock.shapes.scene import COLOURS, KINDS

VACE, TEXT_TO_VIDEO = "shapes-vace", "shapes-t2v"
TEXT_LENGTH = 16
TEXT_DIM = 128
VOCABULARY = ["<pad>", "</s>", "<unk>", "a", "an", "and", "empty", "background", *COLOURS, *KINDS]


def build_vae() -> AutoencoderKLWan:
    """8x in space, 4x in time, 16 channels; `patch_size` is a pixel unshuffle, the first 2x."""
    return AutoencoderKLWan(
        base_dim=40,
        z_dim=16,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


TRUNK = dict(
    patch_size=(1, 1, 1),
    num_attention_heads=4,
    attention_head_dim=64,
    in_channels=16,
    out_channels=16,
    text_dim=TEXT_DIM,
    freq_dim=256,
    ffn_dim=1024,
    num_layers=5,
    rope_max_seq_len=64,
)


def build_vace() -> WanVACETransformer3DModel:
    """The model that fills a hole, control at layers 0 and 2; a token is 8x8 pixels."""
    return WanVACETransformer3DModel(**TRUNK, vace_layers=[0, 2], vace_in_channels=96)


def build_text_to_video() -> WanTransformer3DModel:
    """The text-to-video model: the same trunk, with weights of its own."""
    return WanTransformer3DModel(**TRUNK)


def build_text_encoder() -> UMT5EncoderModel:
    """Two layers of UMT5 over a vocabulary of words."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(VOCABULARY),
            d_model=TEXT_DIM,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    tokenizer = Tokenizer(
        WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def save_models(
    out: Path,
    vae: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    vace: WanVACETransformer3DModel,
    text_to_video: WanTransformer3DModel,
) -> None:
    """Write `shapes-vace`, `shapes-t2v`, and `shared`, which both need, in half precision."""
    vae.register_to_config(_name_or_path="")  # or it would name a folder of this machine
    shared = dict(
        tokenizer=build_tokenizer(),
        text_encoder=text_encoder.half(),
        vae=vae.half(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    pipelines = {
        VACE: WanVACEPipeline(transformer=vace.half(), **shared),
        TEXT_TO_VIDEO: WanPipeline(transformer=text_to_video.half(), **shared),
    }
    for folder in (SHARED, *pipelines):
        shutil.rmtree(out / folder, ignore_errors=True)
    for name, pipeline in pipelines.items():
        pipeline.save_config(out / name)
        pipeline.transformer.save_pretrained(out / name / "transformer")
    for part, module in shared.items():
        module.save_pretrained(out / SHARED / part)


def install_models(trained: Path, into: Path) -> None:
    """Copy what `save_models` wrote to `trained` over the models in `into`.

    Their calibrations go, which belong to the weights that stood there. Raises ValueError, before
    anything is copied, where a part is missing.
    """
    for name in (VACE, TEXT_TO_VIDEO):
        if not (trained / name).is_dir():
            remedy = f"type kvlock shapes train --out {trained.parent} --stage export"
            raise ValueError(f"{trained} holds no {name}; {remedy}")
        checkpoint_folder(str(trained / name))  # refuses what is not whole
    for folder in (SHARED, VACE, TEXT_TO_VIDEO):
        shutil.copytree(trained / folder, into / folder, dirs_exist_ok=True)
        (into / folder / CALIBRATION).unlink(missing_ok=True)


def set_latent_statistics(vae: AutoencoderKLWan, latents: torch.Tensor) -> None:
    """Write mean and standard deviation of `latents` [B, C, F, H, W] by channel into the config."""
    vae.register_to_config(
        latents_mean=[round(float(x), 4) for x in latents.float().mean(dim=(0, 2, 3, 4))],
        latents_std=[round(float(x), 4) for x in latents.float().std(dim=(0, 2, 3, 4))],
    )


def latent_statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation from the VAE's config, [1, C, 1, 1, 1]."""
    mean, std = (
        torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return mean, std
