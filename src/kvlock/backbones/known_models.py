"""The models that are known by a short name, with their own defaults. Anything else is a hub id or a folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHAPES_FOLDER = "shapes/weights"
# Chosen on seeds 10000 to 10039, which neither training nor docs/shapes.md uses: at rest the variance there is 0.014
# where the lock begins (median, 30 steps, guidance 3); tau is twice that.
SHAPES_DEFAULTS = {"guidance_scale": 3.0, "threshold": 0.03}


@dataclass(frozen=True)
class KnownModel:
    """One row of `kvlock models`.

    `source` is a hub id, or the name of a folder that comes with kvlock. `parameters` counts the DiT, in millions;
    `weights_gb` is the whole pipeline's weights as loaded. `size` is (height, width); clips are scaled to its area.
    `defaults` are the fields of KVLockConfig that differ from the paper's, `architecture` those of the transformer's
    config that differ from diffusers' own, so that costs are known before anything is fetched.
    """

    name: str
    source: str
    family: str
    parameters: float
    weights_gb: float
    licence: str
    size: tuple[int, int]
    max_frames: int
    max_sequence_length: int = 512
    flow_shift: float | None = None
    packaged: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)


_SHAPES: dict[str, Any] = dict(
    licence="Apache-2.0", size=(96, 96), max_frames=33, max_sequence_length=16, packaged=True, defaults=SHAPES_DEFAULTS
)
_WAN: dict[str, Any] = dict(licence="Apache-2.0", size=(480, 832), max_frames=81, flow_shift=3.0)
_SMALL_WAN: dict[str, Any] = dict(num_attention_heads=12, ffn_dim=8960, num_layers=30)
_SMALL_VACE: dict[str, Any] = dict(_SMALL_WAN, vace_layers=list(range(0, 30, 2)))
KNOWN_MODELS = (
    KnownModel("shapes", "shapes-vace", "wan-vace", 6.0, 0.05, **_SHAPES),
    KnownModel("shapes-t2v", "shapes-t2v", "wan", 4.0, 0.05, **_SHAPES),
    KnownModel(
        "wan2.1-t2v-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan", 1419, 14.7, **_WAN, architecture=_SMALL_WAN
    ),
    KnownModel("wan2.1-t2v-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan", 14288, 40.5, **_WAN),
    KnownModel(
        "wan2.1-vace-1.3b",
        "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
        "wan-vace",
        2153,
        16,
        **_WAN,
        architecture=_SMALL_VACE,
    ),
    KnownModel("wan2.1-vace-14b", "Wan-AI/Wan2.1-VACE-14B-diffusers", "wan-vace", 17337, 46, **_WAN),
)


def known_model(name: str) -> KnownModel | None:
    """The known model of that name, or whose hub id it is."""
    return next((m for m in KNOWN_MODELS if name in (m.name, m.source)), None)


def family_of(model: str) -> str:
    """ "wan-vace" or "wan": of a known model, a folder by its index, a hub id by its name."""
    known = known_model(model)
    if known:
        return known.family
    try:
        name = json.loads((Path(model) / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = model
    return "wan-vace" if "vace" in name.lower() else "wan"
