"""A tiny random pipeline of every family's real classes, and how its own `__call__` is asked."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaModel,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
)

from kvlock.contract.types import EditRequest
from kvlock.core.config import KVLockConfig
from support import tiny

TEXT_LENGTH = 16
Latents = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiny:
    """One family.

    row: its name in FAMILIES. size: frames, height, width of a clip of 12 tokens or more.
    pipe: makes the pipeline, the same weights each time. attention: the names of its self-attention
    layers, with `*` for a number; `keys` the token axis of their keys, `text` where text tokens are.
    to_stock, from_stock: latents [B, C, F, H, W] to the pipeline's own layout, and what it gives
    back. asked: further arguments of its call, from a request; unasked: what it does not take.
    during: what is changed in the pipeline while it runs. tolerance: how far the stock
    pipeline's latents may be from ours with the lock off, and `why` where that is not 0.
    """

    row: str
    pipe: Callable[[], Any]
    size: tuple[int, int, int] = (9, 32, 32)
    attention: tuple[str, ...] = ("transformer.blocks.*.attn1",)
    keys: int = 1
    text: str = "none"
    to_stock: Latents = lambda latents: latents
    from_stock: Callable[[Tensor, tuple[int, ...]], Tensor] = lambda latents, shape: latents
    asked: Callable[[EditRequest], dict[str, Any]] = lambda request: {}
    unasked: tuple[str, ...] = ()
    during: Callable[[Any, EditRequest], AbstractContextManager[None]] = lambda *_: nullcontext()
    tolerance: float = 0.0
    why: str = ""
    name: str = ""
    packs: bool = False
    velocities: bool = True

    def refuses(self, config: Any) -> bool:
        """Whether a method makes no sense on it: it drops, or goes by velocities."""
        if not isinstance(config, KVLockConfig):
            return not self.velocities
        walks = config.source.inversion or config.guidance.zero_init_steps
        return bool(walks and not self.velocities or config.drop and not self.packs)

    @property
    def id(self) -> str:
        """For the tests' names."""
        return self.name or self.row

    def request(self, seed: int = 0, prompt: str = "a red cat", source: str = "a dog"):
        """A clip of noise, of which about a third is to be edited."""
        frames, height, width = self.size
        generator = torch.Generator().manual_seed(100 + seed)
        video = torch.randint(
            0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8
        )
        mask = torch.zeros(frames, height, width, dtype=torch.bool)
        mask[:, : height // 2, seed * width // 4 : (seed + 2) * width // 4] = True
        return EditRequest(video, mask, prompt, source, seed=seed, fps=16)

    def stock(
        self, pipe: Any, request: EditRequest, noise: Tensor, config: KVLockConfig, **more: Any
    ) -> Tensor:
        """The latents that diffusers' own pipeline makes of this noise."""
        frames, height, width = self.size
        asked: dict[str, Any] = dict(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance.guidance_scale,
            latents=self.to_stock(noise),
            output_type="latent",
            max_sequence_length=TEXT_LENGTH,
        )
        asked = {name: value for name, value in asked.items() if name not in self.unasked}
        with self.during(pipe, request):
            latents = pipe(**asked | self.asked(request) | more).frames
        return self.from_stock(latents, tuple(noise.shape))


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _wan(pipeline: Any, transformers: dict[str, Any], vae: Any = None, **settings: Any) -> Any:
    return _quiet(
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


def _two_experts() -> WanPipeline:
    experts = {"transformer": _trunk(2), "transformer_2": _trunk(12)}
    return _wan(WanPipeline, experts, boundary_ratio=0.7)


def _two_vace_experts() -> WanVACEPipeline:
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


def _ti2v() -> WanPipeline:
    trunk = _trunk(5, in_channels=48, out_channels=48)
    return _wan(WanPipeline, {"transformer": trunk}, _vae_16(), expand_timesteps=True)


def _control(request: EditRequest) -> dict[str, Any]:
    """VACE's own preparation, from the clip greyed out inside the mask."""
    video = request.video.numpy() / np.float32(255)
    video[request.mask.numpy()] = 0.5
    mask = np.repeat(request.mask.numpy()[..., None], 3, axis=-1).astype(np.float32)
    return dict(video=[video], mask=[mask])


def _skyreels() -> SkyReelsV2Pipeline:
    return _wan(SkyReelsV2Pipeline, {"transformer": _trunk(4, SkyReelsV2Transformer3DModel)})


def _ltx() -> LTXPipeline:
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
    return _quiet(
        LTXPipeline(
            scheduler, vae.eval(), tiny.t5_encoder(), tiny.tokenizer(), transformer.eval()
        )
    )


def _cogvideox(**changes: Any) -> CogVideoXPipeline:
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
    return _quiet(
        CogVideoXPipeline(tiny.tokenizer(), tiny.t5_encoder(), vae, transformer, scheduler)
    )


def _cogvideox_5b() -> CogVideoXPipeline:
    return _cogvideox(use_rotary_positional_embeddings=True)


def _cogvideox_15() -> CogVideoXPipeline:
    return _cogvideox(use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False)


def _pairs(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Frames before channels and one by one -> pairs of frames as channels."""
    return latents.unflatten(1, (-1, 2)).permute(0, 3, 2, 1, 4, 5).reshape(shape)


def _one_by_one(latents: Tensor) -> Tensor:
    return latents.unflatten(1, (-1, 2)).permute(0, 3, 2, 1, 4, 5).flatten(1, 2)


def _unpacked(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    return latents.transpose(1, 2).reshape(shape)


def _mochi() -> MochiPipeline:
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
    return _quiet(
        MochiPipeline(scheduler, vae, tiny.t5_encoder(), tiny.tokenizer(), transformer)
    )


def _llama() -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaModel(config).eval()


def _clip() -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=8,
        projection_dim=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return CLIPTextModel(config).eval()


def _hunyuan() -> HunyuanVideoPipeline:
    torch.manual_seed(9)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    ).eval()
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()
    return _quiet(
        HunyuanVideoPipeline(
            text_encoder=_llama(),
            tokenizer=tiny.tokenizer(),
            transformer=transformer,
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            text_encoder_2=_clip(),
            tokenizer_2=tiny.tokenizer(),
        )
    )


def _qwen() -> Qwen2_5_VLTextModel:
    torch.manual_seed(0)
    config = Qwen2_5_VLTextConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[1, 1, 2]),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen2_5_VLTextModel(config).eval()


CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def _hunyuan_15() -> HunyuanVideo15Pipeline:
    torch.manual_seed(10)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=tiny.TEXT_DIM,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=32,
        task_type="t2v",
    ).eval()
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        spatial_compression_ratio=8,
    ).eval()
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = CHAT
    return _quiet(
        HunyuanVideo15Pipeline(
            text_encoder=_qwen(),
            tokenizer=tokenizer,
            transformer=transformer,
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            text_encoder_2=tiny.t5_encoder(),
            tokenizer_2=tiny.tokenizer(),
            guider=ClassifierFreeGuidance(guidance_scale=5.0),
        )
    )


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


def _ltx2() -> LTX2Pipeline:
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
    return _quiet(
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
def _in_silence(pipe: Any, request: EditRequest) -> Iterator[None]:
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


IN_ONE_BATCH = "the stock pipeline runs both branches in one batch"
_EXPERTS = ("transformer.blocks.*.attn1", "transformer_2.blocks.*.attn1")
WAN = Tiny("wan2.1", tiny.wan_pipe, packs=True)
VACE = Tiny("wan2.1-vace", tiny.vace_pipe, asked=_control, packs=True)
COGVIDEOX = Tiny(
    "cogvideox",
    _cogvideox,
    (9, 32, 48),
    ("transformer.transformer_blocks.*.attn1",),
    keys=2,
    text="before",
    velocities=False,
    to_stock=lambda latents: latents.transpose(1, 2),
    from_stock=lambda latents, shape: latents.transpose(1, 2),
    tolerance=1e-5,
    why=IN_ONE_BATCH,
)
PIPES = (
    WAN,
    VACE,
    replace(WAN, row="wan2.2", pipe=_two_experts, attention=_EXPERTS),
    replace(VACE, row="wan2.2-vace", pipe=_two_vace_experts, attention=_EXPERTS),
    replace(WAN, row="wan2.2-5b", pipe=_ti2v, size=(9, 64, 64)),
    Tiny(
        "ltx",
        _ltx,
        (9, 32, 64),
        ("transformer.transformer_blocks.*.attn1",),
        to_stock=lambda latents: latents.flatten(2).transpose(1, 2),
        from_stock=_unpacked,
        asked=lambda request: dict(frame_rate=request.fps),
        tolerance=1e-5,
        why=IN_ONE_BATCH,
    ),
    Tiny(
        "ltx2",
        _ltx2,
        (9, 32, 32),
        ("transformer.transformer_blocks.*.attn1",),
        to_stock=lambda latents: latents.flatten(2).transpose(1, 2),
        asked=lambda request: dict(
            frame_rate=request.fps,
            stg_scale=0.0,
            modality_scale=1.0,
            guidance_rescale=0.0,
            audio_guidance_scale=1.0,
            audio_stg_scale=0.0,
            audio_modality_scale=1.0,
            audio_guidance_rescale=0.0,
            spatio_temporal_guidance_blocks=None,
        ),
        during=_in_silence,
        tolerance=1e-4,
        why="guidance on clean predictions, both branches in one batch",
    ),
    COGVIDEOX,
    replace(COGVIDEOX, name="cogvideox, rotary", pipe=_cogvideox_5b),
    Tiny(
        "hunyuan-video1.5",
        _hunyuan_15,
        attention=("transformer.transformer_blocks.*.attn",),
        unasked=("guidance_scale", "max_sequence_length"),
    ),
    replace(WAN, row="skyreels-v2", pipe=_skyreels),
    Tiny(
        "hunyuan-video",
        _hunyuan,
        attention=(
            "transformer.transformer_blocks.*.attn",
            "transformer.single_transformer_blocks.*.attn",
        ),
        text="after",
        asked=lambda request: dict(true_cfg_scale=5.0, guidance_scale=6.0),
    ),
    Tiny(
        "mochi",
        _mochi,
        (13, 32, 48),
        ("transformer.transformer_blocks.*.attn1",),
        tolerance=1e-5,
        why=IN_ONE_BATCH,
    ),
    replace(
        COGVIDEOX,
        row="cogvideox1.5",
        pipe=_cogvideox_15,
        size=(17, 32, 48),
        to_stock=_one_by_one,
        from_stock=_pairs,
    ),
)
