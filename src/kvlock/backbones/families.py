"""All that is known of a model family, one row each. No torch here.

A new family is a file with its adapter and a row in FAMILIES.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvlock.backbones.family import Depth, Family, classes_of
from kvlock.backbones.other_families import (
    COGVIDEOX,
    COGVIDEOX_15,
    HUNYUAN,
    HUNYUAN_15,
    LTX,
    LTX2,
    MOCHI,
)

# What Wan 2.1 and VACE put for an empty negative prompt, word for word:
# github.com/Wan-Video/Wan2.1, wan/configs/shared_config.py, sample_neg_prompt.
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
# The shifts are those of the example in diffusers' WanPipeline and WanVACEPipeline. Wan's own
# generate.py takes 5 for text-to-video (3 for image-to-video at 480p), VACE's own scripts take 16.
WAN_FLOW_SHIFTS = {(480, 832): 3.0, (720, 1280): 5.0}
UMT5_XXL = dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)


_WAN: dict[str, Any] = dict(
    vae="AutoencoderKLWan", text_encoder="UMT5EncoderModel", published={"text_dim": 4096}
)
_WAN_TRAINED: dict[str, Any] = dict(
    size=(480, 832),
    max_frames=81,
    fps=16,
    negative_prompt=WAN_NEGATIVE_PROMPT,
    flow_shifts=WAN_FLOW_SHIFTS,
    text_config=UMT5_XXL,
)
WAN_T2V = Family(
    "wan2.1",
    pipeline="WanPipeline",
    transformer="WanTransformer3DModel",
    adapter="kvlock.backbones.wan.t2v:WanBackbone",
    takes_control=False,
    depth=Depth("num_layers"),
    **_WAN,
    **_WAN_TRAINED,
)
WAN_VACE = Family(
    "wan2.1-vace",
    pipeline="WanVACEPipeline",
    transformer="WanVACETransformer3DModel",
    adapter="kvlock.backbones.wan.vace:WanVACEBackbone",
    takes_control=True,
    depth=Depth("num_layers", control="vace_layers"),
    **_WAN,
    **_WAN_TRAINED,
)
# Wan 2.2 keeps the shift of its checkpoints. Guidance, sizes and frames are those of diffusers'
# example and of github.com/Wan-Video/Wan2.2, wan/configs: 4 at high noise and 3 at low.
_WAN_22: dict[str, Any] = dict(marks={"boundary_ratio": 0.875}, flow_shifts={})
_TWO_SCALES = {"guidance_scale": 4.0, "guidance_scale_2": 3.0}
WAN_22 = replace(
    WAN_T2V,
    name="wan2.2",
    modules={"transformer_2": "WanTransformer3DModel"},
    options=_TWO_SCALES,
    **_WAN_22,
)
WAN_22_VACE = replace(
    WAN_VACE,
    name="wan2.2-vace",
    modules={"transformer_2": "WanVACETransformer3DModel"},
    **_WAN_22,
)
WAN_22_SMALL = replace(
    WAN_T2V,
    name="wan2.2-5b",
    marks={"expand_timesteps": True},
    size=(704, 1280),
    max_frames=121,
    fps=24,
    flow_shifts={},
)
# As in diffusers' example: 540p.
SKYREELS = replace(
    WAN_T2V,
    name="skyreels-v2",
    pipeline="SkyReelsV2Pipeline",
    transformer="SkyReelsV2Transformer3DModel",
    size=(544, 960),
    max_frames=97,
    fps=24,
    flow_shifts={(544, 960): 8.0},
    options={"guidance_scale": 6.0},
)
_SHAPES: dict[str, Any] = dict(
    published={"text_dim": 128},
    size=(96, 96),
    max_frames=33,
    negative_prompt="",
    flow_shifts={},
    max_sequence_length=16,
    # Chosen on seeds 10000 to 10039, which neither training nor docs/shapes.md uses: at rest the
    # variance there is 0.014 where the lock begins (median, 30 steps, guidance 3); tau is twice that.
    options={"guidance_scale": 3.0, "threshold": 0.03},
    text_config={},
)
FAMILIES = (
    WAN_T2V,
    WAN_VACE,
    WAN_22,
    WAN_22_VACE,
    WAN_22_SMALL,
    LTX,
    LTX2,
    COGVIDEOX,
    COGVIDEOX_15,
    HUNYUAN_15,
    SKYREELS,
    HUNYUAN,
    MOCHI,
    replace(WAN_T2V, name="shapes-t2v", **_SHAPES),
    replace(WAN_VACE, name="shapes", **_SHAPES),
)


def recognised(
    pipeline: str, transformer: Mapping[str, Any], index: Mapping[str, Any]
) -> Family | None:
    """The row of a pipeline's class, its transformer's config and its own; None for no row's class.

    index: what model_index.json says. Of a config that is no published one, only the classes are
    known, by the row that agrees in most.
    """
    rows = [row for row in FAMILIES if row.pipeline == pipeline]
    marked = [row for row in rows if row.marks and all(index.get(name) for name in row.marks)]
    rows = marked or [row for row in rows if not row.marks]
    if not rows:
        return None

    def agreeing(row: Family) -> int:
        return sum(transformer.get(name) == value for name, value in row.published.items())

    best = max(rows, key=agreeing)
    return best if agreeing(best) == len(best.published) else classes_of(best)


def recognised_pipe(pipe: Any) -> Family:
    """The row of a loaded pipeline. Raises ValueError for a class in no row."""
    names = [cls.__name__ for cls in type(pipe).__mro__]
    config = getattr(getattr(pipe, "transformer", None), "config", {})
    found = [
        row for name in names if (row := recognised(name, config, getattr(pipe, "config", {})))
    ]
    if not found:
        raise ValueError(f"{names[0]} is of no known family; expected {pipeline_names()}")
    return found[0]


def family_named(name: str) -> Family:
    """The row of that name."""
    return next(row for row in FAMILIES if row.name == name)


def pipeline_names() -> str:
    """Every pipeline class that kvlock can edit with, for messages."""
    return ", ".join(dict.fromkeys(row.pipeline for row in FAMILIES))
