"""The checkpoints that are known by a short name. Anything else is a hub id or a folder."""

from dataclasses import dataclass, field
from typing import Any

from kvlock.backbones.families import family_named
from kvlock.backbones.family import Family

SHAPES_FOLDER = "shapes/weights"


@dataclass(frozen=True)
class KnownModel:
    """One row of `kvlock models`.

    `source` is a hub id, or the name of a folder that comes with kvlock (`packaged`). `family` is
    the name of its row there. `parameters` counts the DiT, of two
    experts both, in millions; `weights_gb` is the whole
    pipeline's weights as loaded. `architecture` are the fields of the transformer's config that
    differ from diffusers' own, `vae` those of the VAE's, so that costs are known before anything is
    fetched.
    """

    name: str
    source: str
    family: str
    parameters: float
    weights_gb: float
    licence: str = "Apache-2.0"
    packaged: bool = False
    architecture: dict[str, Any] = field(default_factory=dict, hash=False)
    vae: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def spec(self) -> Family:
        """Its family's row."""
        return family_named(self.family)


_SMALL_WAN: dict[str, Any] = dict(num_attention_heads=12, ffn_dim=8960, num_layers=30)
_SMALL_VACE: dict[str, Any] = dict(_SMALL_WAN, vace_layers=list(range(0, 30, 2)))
_WAN_5B: dict[str, Any] = dict(
    in_channels=48, out_channels=48, num_attention_heads=24, ffn_dim=14336, num_layers=30
)
_COGVIDEOX_5B: dict[str, Any] = dict(
    num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True
)
_COGVIDEOX_15: dict[str, Any] = dict(
    _COGVIDEOX_5B, patch_size_t=2, patch_bias=False, sample_height=300, sample_width=300
)
_WAN_VAE_16: dict[str, Any] = dict(
    z_dim=48,
    base_dim=160,
    decoder_base_dim=256,
    is_residual=True,
    in_channels=12,
    out_channels=12,
    patch_size=2,
    scale_factor_spatial=16,
)
KNOWN_MODELS = (
    KnownModel("shapes", "shapes-vace", "shapes", 6.0, 0.05, packaged=True),
    KnownModel("shapes-t2v", "shapes-t2v", "shapes-t2v", 4.0, 0.05, packaged=True),
    KnownModel(
        "wan2.1-t2v-1.3b",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "wan2.1",
        1419,
        14.7,
        architecture=_SMALL_WAN,
    ),
    KnownModel("wan2.1-t2v-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan2.1", 14288, 40.5),
    KnownModel(
        "wan2.1-vace-1.3b",
        "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
        "wan2.1-vace",
        2153,
        16.2,
        architecture=_SMALL_VACE,
    ),
    KnownModel("wan2.1-vace-14b", "Wan-AI/Wan2.1-VACE-14B-diffusers", "wan2.1-vace", 17337, 46.5),
    KnownModel("wan2.2-t2v-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "wan2.2", 28577, 69.1),
    KnownModel(
        "wan2.2-vace-a14b", "linoyts/Wan2.2-VACE-Fun-14B-diffusers", "wan2.2-vace", 34675, 81.3
    ),
    KnownModel(
        "wan2.2-ti2v-5b",
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "wan2.2-5b",
        5000,
        24.2,
        architecture=_WAN_5B,
        vae=_WAN_VAE_16,
    ),
    KnownModel("ltx-video-2b", "Lightricks/LTX-Video", "ltx", 1923, 15.0, "LTX-Video open weights"),
    KnownModel(
        "ltx-2",
        "Lightricks/LTX-2",
        "ltx2",
        18876,
        66.4,
        "LTX-2 community licence",
        vae=dict(spatial_compression_ratio=32, temporal_compression_ratio=8),
    ),
    KnownModel("cogvideox-2b", "THUDM/CogVideoX-2b", "cogvideox", 1694, 13.8),
    KnownModel(
        "cogvideox-5b",
        "THUDM/CogVideoX-5b",
        "cogvideox",
        5570,
        21.5,
        "CogVideoX licence",
        architecture=_COGVIDEOX_5B,
    ),
    KnownModel(
        "cogvideox1.5-5b",
        "THUDM/CogVideoX1.5-5B",
        "cogvideox1.5",
        5570,
        21.5,
        "CogVideoX licence",
        architecture=_COGVIDEOX_15,
    ),
    KnownModel(
        "hunyuan-video1.5-480p",
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
        "hunyuan-video1.5",
        8327,
        35.8,
        "Tencent Hunyuan licence",
    ),
    KnownModel(
        "skyreels-v2-14b-540p",
        "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers",
        "skyreels-v2",
        14288,
        40.4,
        "Skywork licence",
        architecture=dict(num_attention_heads=40, num_layers=40, ffn_dim=13824),
    ),
    KnownModel(
        "hunyuan-video",
        "hunyuanvideo-community/HunyuanVideo",
        "hunyuan-video",
        12821,
        41.6,
        "Tencent Hunyuan licence",
    ),
    KnownModel("mochi-1", "genmo/mochi-1-preview", "mochi", 10028, 31.4),
)


def known_model(name: str) -> KnownModel | None:
    """The known model of that name, or whose hub id it is."""
    return next((m for m in KNOWN_MODELS if name in (m.name, m.source)), None)
