"""All that is known of a model family, one row each. No torch here.

A new family is a file with its adapter and a row in FAMILIES.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

Size = tuple[int, int]  # height, width

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


@dataclass(frozen=True)
class Depth:
    """Fields of a transformer's config: how many layers, and the numbers of those that a control
    stream has one beside. Costs are counted on few layers, and are the same for each that follows.
    """

    layers: str
    control: str | None = None

    def repeats(self, config: Mapping[str, Any]) -> int:
        """How often the layers' pattern repeats; 1 where there is none."""
        layers = config[self.layers]
        if self.control is None:
            return layers
        beside = list(config[self.control])
        period = layers // len(beside)
        return len(beside) if beside == list(range(0, layers, period)) else 1

    def shortened(self, config: Mapping[str, Any], repeats: int) -> dict[str, Any]:
        """The fields that leave so many repeats."""
        period = config[self.layers] // self.repeats(config)
        layers = {self.layers: period * repeats}
        return layers | (
            {self.control: [period * i for i in range(repeats)]} if self.control else {}
        )

    def one_layer(self) -> dict[str, Any]:
        """The fields that leave one layer."""
        return {self.layers: 1} | ({self.control: [0]} if self.control else {})


@dataclass(frozen=True)
class Family:
    """One row.

    pipeline, transformer, vae: classes of diffusers by name; text_encoder: of transformers;
    adapter: "module:class", which is called with a pipeline. takes_control: whether the model is
    shown the source outside the mask; without it, the lock alone ties the edit to the source.
    published: values in the transformer's config by which the published checkpoints are known.
    All below holds for those alone: size (height, width), whose area clips are scaled to;
    max_frames, fps: what the model was trained on; negative_prompt: of the unconditional branch
    where the user gives none; flow_shifts: by size; max_sequence_length: text tokens; options: of
    a method, where they differ from the paper's; text_config: the text encoder's, before it is
    there. depth: how the transformer's layers repeat.
    """

    name: str
    pipeline: str
    transformer: str
    vae: str
    text_encoder: str
    adapter: str
    takes_control: bool
    depth: "Depth | None" = None
    published: dict[str, Any] = field(default_factory=dict, hash=False)
    default_method: str = "kv-lock"
    size: Size | None = None
    max_frames: int | None = None
    fps: float | None = None
    negative_prompt: str = ""
    flow_shifts: dict[Size, float] = field(default_factory=dict, hash=False)
    max_sequence_length: int = 512
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    text_config: dict[str, Any] = field(default_factory=dict, hash=False)

    def flow_shift(self, size: Size | None = None) -> float | None:
        """That of the known size whose area is nearest; of the first without a size.

        None leaves the checkpoint's own.
        """
        if not self.flow_shifts:
            return None
        return self.flow_shifts[self._nearest(size) if size else next(iter(self.flow_shifts))]

    def adapter_class(self) -> Any:
        """The adapter, imported."""
        module, name = self.adapter.split(":")
        return getattr(import_module(module), name)

    def _nearest(self, size: Size) -> Size:
        def ratio(known: Size) -> float:
            small, large = sorted((known[0] * known[1], size[0] * size[1]))
            return large / small

        return min(self.flow_shifts, key=ratio)


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
    replace(WAN_T2V, name="shapes-t2v", **_SHAPES),
    replace(WAN_VACE, name="shapes", **_SHAPES),
)


def recognised(pipeline: str, transformer: Mapping[str, Any]) -> Family | None:
    """The row of a pipeline's class and its transformer's config; None for a class in no row.

    Of a config that is no published one, only the classes are known.
    """
    rows = [row for row in FAMILIES if row.pipeline == pipeline]
    for row in rows:
        if all(transformer.get(name) == value for name, value in row.published.items()):
            return row
    return _classes_of(rows[0]) if rows else None


def recognised_pipe(pipe: Any) -> Family:
    """The row of a loaded pipeline. Raises ValueError for a class in no row."""
    names = [cls.__name__ for cls in type(pipe).__mro__]
    config = getattr(getattr(pipe, "transformer", None), "config", {})
    found = [row for name in names if (row := recognised(name, config))]
    if not found:
        raise ValueError(f"{names[0]} is of no known family; expected {pipeline_names()}")
    return found[0]


def family_named(name: str) -> Family:
    """The row of that name."""
    return next(row for row in FAMILIES if row.name == name)


def pipeline_names() -> str:
    """Every pipeline class that kvlock can edit with, for messages."""
    return ", ".join(dict.fromkeys(row.pipeline for row in FAMILIES))


def _classes_of(row: Family) -> Family:
    return Family(
        row.name,
        row.pipeline,
        row.transformer,
        row.vae,
        row.text_encoder,
        row.adapter,
        row.takes_control,
        row.depth,
        default_method=row.default_method,
    )
