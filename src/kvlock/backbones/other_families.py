"""The rows of the families that are not Wan's. No torch here."""

from typing import Any

from kvlock.backbones.family import Depth, Family

T5_XXL = dict(
    vocab_size=32128,
    d_model=4096,
    d_kv=64,
    d_ff=10240,
    num_layers=24,
    num_heads=64,
    feed_forward_proj="gated-gelu",
)
LLAMA_8B = dict(
    vocab_size=128320,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
QWEN_7B = dict(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
)
GEMMA_12B = dict(
    text_config=dict(
        hidden_size=3840,
        intermediate_size=15360,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
    )
)
# As in diffusers' example; the scheduler as its conversion script writes it.
LTX = Family(
    "ltx",
    pipeline="LTXPipeline",
    transformer="LTXVideoTransformer3DModel",
    vae="AutoencoderKLLTXVideo",
    text_encoder="T5EncoderModel",
    adapter="kvlock.backbones.ltx:LTXBackbone",
    takes_control=False,
    depth=Depth("num_layers"),
    published={"caption_channels": 4096},
    size=(512, 704),
    max_frames=257,
    fps=25,
    negative_prompt="worst quality, inconsistent motion, blurry, jittery, distorted",
    max_sequence_length=128,
    options={"guidance_scale": 3.0},
    text_config=T5_XXL,
    scheduler=dict(
        _class_name="FlowMatchEulerDiscreteScheduler",
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    ),
)
# As the pipeline's own defaults and diffusers' example have it.
LTX2 = Family(
    "ltx2",
    pipeline="LTX2Pipeline",
    transformer="LTX2VideoTransformer3DModel",
    vae="AutoencoderKLLTX2Video",
    text_encoder="Gemma3ForConditionalGeneration",
    modules={
        "connectors": "diffusers.pipelines.ltx2:LTX2TextConnectors",
        "audio_vae": "AutoencoderKLLTX2Audio",
    },
    unused=("vocoder", "processor", "prompt_enhancer", "duration_head"),
    adapter="kvlock.backbones.ltx2:LTX2Backbone",
    takes_control=False,
    depth=Depth("num_layers"),
    published={"caption_channels": 3840},
    size=(512, 768),
    max_frames=257,
    fps=24,
    max_sequence_length=1024,
    options={"guidance_scale": 3.0},
    text_config=GEMMA_12B,
    scheduler=LTX.scheduler,
)
_COGVIDEOX: dict[str, Any] = dict(
    pipeline="CogVideoXPipeline",
    transformer="CogVideoXTransformer3DModel",
    vae="AutoencoderKLCogVideoX",
    text_encoder="T5EncoderModel",
    adapter="kvlock.backbones.cogvideox:CogVideoXBackbone",
    takes_control=False,
    depth=Depth("num_layers"),
    flow_matching=False,
    max_sequence_length=226,
    options={"guidance_scale": 6.0},
    text_config=T5_XXL,
    scheduler=dict(
        _class_name="CogVideoXDDIMScheduler",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    ),
)
COGVIDEOX = Family(
    "cogvideox",
    published={"text_embed_dim": 4096, "patch_size_t": None},
    size=(480, 720),
    max_frames=49,
    fps=8,
    **_COGVIDEOX,
)
COGVIDEOX_15 = Family(
    "cogvideox1.5",
    published={"text_embed_dim": 4096, "patch_size_t": 2},
    size=(768, 1360),
    max_frames=81,
    fps=16,
    **_COGVIDEOX,
)
_EULER = dict(_class_name="FlowMatchEulerDiscreteScheduler")
MOCHI = Family(
    "mochi",
    pipeline="MochiPipeline",
    transformer="MochiTransformer3DModel",
    vae="AutoencoderKLMochi",
    text_encoder="T5EncoderModel",
    adapter="kvlock.backbones.mochi:MochiBackbone",
    takes_control=False,
    counted=False,
    published={"text_embed_dim": 4096},
    size=(480, 848),
    max_frames=163,
    fps=30,
    max_sequence_length=256,
    options={"guidance_scale": 4.5},
    text_config=T5_XXL,
    scheduler=_EULER | dict(invert_sigmas=True),
)
HUNYUAN = Family(
    "hunyuan-video",
    pipeline="HunyuanVideoPipeline",
    transformer="HunyuanVideoTransformer3DModel",
    vae="AutoencoderKLHunyuanVideo",
    text_encoder="LlamaModel",
    modules={"text_encoder_2": "CLIPTextModel"},
    adapter="kvlock.backbones.hunyuan_video:HunyuanVideoBackbone",
    takes_control=False,
    embedded_guidance=True,
    published={"text_embed_dim": 4096},
    size=(720, 1280),
    max_frames=129,
    fps=24,
    max_sequence_length=256,
    options={"guidance_scale": 1.0},
    text_config=LLAMA_8B,
    scheduler=_EULER,
)
HUNYUAN_15 = Family(
    "hunyuan-video1.5",
    pipeline="HunyuanVideo15Pipeline",
    transformer="HunyuanVideo15Transformer3DModel",
    vae="AutoencoderKLHunyuanVideo15",
    text_encoder="Qwen2_5_VLTextModel",
    modules={"text_encoder_2": "T5EncoderModel"},
    adapter="kvlock.backbones.hunyuan_video15:HunyuanVideo15Backbone",
    takes_control=False,
    counted=False,
    published={"text_embed_dim": 3584},
    size=(480, 848),
    max_frames=121,
    fps=24,
    max_sequence_length=1000,
    options={"guidance_scale": 6.0},
    text_config=QWEN_7B,
    scheduler=_EULER,
)
