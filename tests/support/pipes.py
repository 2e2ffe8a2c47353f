"""A tiny random pipeline of every family's real classes."""

from dataclasses import replace

from support import tiny
from support.pipes_cogvideox import cogvideox, cogvideox_5b, cogvideox_15, mochi, one_by_one, pairs
from support.pipes_hunyuan import hunyuan, hunyuan_15
from support.pipes_ltx import in_silence, ltx, ltx2, unpacked
from support.pipes_wan import control, skyreels, ti2v, two_experts, two_vace_experts
from support.tiny_family import Tiny

IN_ONE_BATCH = "the stock pipeline runs both branches in one batch"
_EXPERTS = ("transformer.blocks.*.attn1", "transformer_2.blocks.*.attn1")
WAN = Tiny("wan2.1", tiny.wan_pipe, packs=True)
VACE = Tiny("wan2.1-vace", tiny.vace_pipe, asked=control, packs=True)
COGVIDEOX = Tiny(
    "cogvideox",
    cogvideox,
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
    replace(WAN, row="wan2.2", pipe=two_experts, attention=_EXPERTS),
    replace(VACE, row="wan2.2-vace", pipe=two_vace_experts, attention=_EXPERTS),
    replace(WAN, row="wan2.2-5b", pipe=ti2v, size=(9, 64, 64)),
    Tiny(
        "ltx",
        ltx,
        (9, 32, 64),
        ("transformer.transformer_blocks.*.attn1",),
        to_stock=lambda latents: latents.flatten(2).transpose(1, 2),
        from_stock=unpacked,
        asked=lambda request: dict(frame_rate=request.fps),
        tolerance=1e-5,
        why=IN_ONE_BATCH,
    ),
    Tiny(
        "ltx2",
        ltx2,
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
        during=in_silence,
        tolerance=1e-4,
        why="guidance on clean predictions, both branches in one batch",
    ),
    COGVIDEOX,
    replace(COGVIDEOX, name="cogvideox, rotary", pipe=cogvideox_5b),
    Tiny(
        "hunyuan-video1.5",
        hunyuan_15,
        attention=("transformer.transformer_blocks.*.attn",),
        unasked=("guidance_scale", "max_sequence_length"),
    ),
    replace(WAN, row="skyreels-v2", pipe=skyreels),
    Tiny(
        "hunyuan-video",
        hunyuan,
        attention=(
            "transformer.transformer_blocks.*.attn",
            "transformer.single_transformer_blocks.*.attn",
        ),
        text="after",
        asked=lambda request: dict(true_cfg_scale=5.0, guidance_scale=6.0),
    ),
    Tiny(
        "mochi",
        mochi,
        (13, 32, 48),
        ("transformer.transformer_blocks.*.attn1",),
        tolerance=1e-5,
        why=IN_ONE_BATCH,
    ),
    replace(
        COGVIDEOX,
        row="cogvideox1.5",
        pipe=cogvideox_15,
        size=(17, 32, 48),
        to_stock=one_by_one,
        from_stock=pairs,
    ),
)
