"""Tiny random DiTs of six families, with their attention sites and a forward; all real classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from kvlock.backbones.seam import AttentionSite
from kvlock.backbones.wan.t2v import attention_sites
from support import tiny


@dataclass(frozen=True)
class Family:
    """`forward` runs the model on latents [B, ...], `draw` makes some; `tokens`: how many of video."""

    name: str
    model: nn.Module
    sites: list[AttentionSite]
    tokens: int
    shape: tuple[int, ...]
    forward: Callable[[Tensor], Tensor]

    def draw(self, count: int, seed: int = 0) -> Tensor:
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed))


def _constant(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def _times(batch: int) -> Tensor:
    return torch.full((batch,), 500.0)


def wan() -> Family:
    torch.manual_seed(0)
    model = WanTransformer3DModel(num_layers=2, **tiny.TRANSFORMER).eval()
    text = _constant(6, tiny.TEXT_DIM)

    def forward(x):
        return model(x, _times(len(x)), text.expand(len(x), -1, -1), return_dict=False)[0]

    return Family("wan", model, attention_sites(model), 3 * 3 * 4, (16, 3, 6, 8), forward)


def vace() -> Family:
    torch.manual_seed(0)
    model = WanVACETransformer3DModel(num_layers=3, vace_layers=[0, 2], **tiny.TRANSFORMER).eval()
    text, control = _constant(6, tiny.TEXT_DIM), _constant(96, 3, 6, 8, seed=6)

    def forward(x):
        batch = len(x)
        return model(
            x,
            _times(batch),
            text.expand(batch, -1, -1),
            control_hidden_states=control.expand(batch, -1, -1, -1, -1),
            return_dict=False,
        )[0]

    return Family("vace", model, attention_sites(model), 3 * 3 * 4, (16, 3, 6, 8), forward)


def cogvideox() -> Family:
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=8,
        num_layers=2,
        sample_width=8,
        sample_height=6,
        sample_frames=9,
        patch_size=2,
        max_text_seq_length=6,
        use_rotary_positional_embeddings=True,
    ).eval()
    text = _constant(6, 8)
    rope = get_3d_rotary_pos_embed(
        embed_dim=16, crops_coords=((0, 0), (3, 4)), grid_size=(3, 4), temporal_size=3
    )

    def forward(x):
        text_rows = text.expand(len(x), -1, -1)
        return model(x, text_rows, _times(len(x)), image_rotary_emb=rope, return_dict=False)[0]

    sites = [
        AttentionSite(f"transformer_blocks.{i}.attn1", block.attn1, key_axis=2, text="before")
        for i, block in enumerate(model.transformer_blocks)
    ]
    return Family("cogvideox", model, sites, 3 * 3 * 4, (3, 4, 6, 8), forward)


def hunyuan_video() -> Family:
    torch.manual_seed(0)
    model = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    ).eval()
    text, pooled = _constant(6, 16), torch.ones(1, 8)

    def forward(x):
        batch = len(x)
        mask = torch.ones(batch, 6)
        pooled_rows, guidance = pooled.expand(batch, -1), torch.full((batch,), 6000.0)
        text_rows = text.expand(batch, -1, -1)
        return model(x, _times(batch), text_rows, mask, pooled_rows, guidance, return_dict=False)[0]

    dual = [
        AttentionSite(f"transformer_blocks.{i}.attn", b.attn)
        for i, b in enumerate(model.transformer_blocks)
    ]
    single = [
        AttentionSite(f"single_transformer_blocks.{i}.attn", b.attn, text="after")
        for i, b in enumerate(model.single_transformer_blocks)
    ]
    return Family("hunyuan-video", model, dual + single, 3 * 4 * 4, (4, 3, 4, 4), forward)


def ltx() -> Family:
    torch.manual_seed(0)
    model = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=16,
    ).eval()
    text = _constant(6, 16)

    def forward(x):
        batch, mask = len(x), torch.ones(len(x), 6)
        text_rows = text.expand(batch, -1, -1)
        return model(
            x, text_rows, _times(batch), mask, num_frames=3, height=4, width=4, return_dict=False
        )[0]

    sites = [
        AttentionSite(f"transformer_blocks.{i}.attn1", b.attn1)
        for i, b in enumerate(model.transformer_blocks)
    ]
    return Family("ltx", model, sites, 3 * 4 * 4, (48, 8), forward)


def mochi() -> Family:
    torch.manual_seed(0)
    model = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=4,
        max_sequence_length=6,
    ).eval()
    text = _constant(6, 16)

    def forward(x):
        batch, mask = len(x), torch.ones(len(x), 6, dtype=torch.bool)
        return model(x, text.expand(batch, -1, -1), _times(batch), mask, return_dict=False)[0]

    sites = [
        AttentionSite(f"transformer_blocks.{i}.attn1", b.attn1)
        for i, b in enumerate(model.transformer_blocks)
    ]
    return Family("mochi", model, sites, 3 * 4 * 4, (4, 3, 8, 8), forward)


FAMILIES = (wan, vace, cogvideox, hunyuan_video, ltx, mochi)
