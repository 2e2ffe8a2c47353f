"""What an edit needs of a device, before anything is loaded."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from kvlock.backbones.dry_run import Cost, denoising_cost, operations_of, peak_of
from kvlock.backbones.known_models import known_model
from kvlock.backbones.loading import model_source
from kvlock.backbones.rates import attention_rate, seconds
from kvlock.backbones.skeleton import assembled, skeleton
from kvlock.core.config import KVLockConfig

UMT5_XXL = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
TEXT_TOKENS = 512
VAE_FRAMES = 9  # from here on the VAE, which goes frame by frame, needs no more than room for what it gives


@dataclass(frozen=True)
class Rates:
    """What the device reaches on this model, FLOP a second."""

    linear: float
    attention: float

    def seconds(self, cost: Cost) -> float:
        """How long an edit's denoising takes."""
        return cost.linear_flops / self.linear + cost.attention_flops / self.attention


class Estimator:
    """A model without weights, at one size of clip: foreground bool [F, H, W] of latents says what may be edited."""

    def __init__(self, model: str, dtype: torch.dtype, tile_vae: bool = False):
        self.model, self.dtype = model, dtype
        self.backbone = skeleton(model, "meta", dtype)
        if tile_vae:
            self.backbone.pipe.vae.enable_tiling()

    def cost(self, foreground: Tensor, config: KVLockConfig, variants: int = 1) -> Cost:
        """The denoising."""
        return denoising_cost(self.backbone, foreground, config, variants)

    def peak_bytes(self, cost: Cost, video_size: tuple[int, int, int], offload: bool) -> int:
        """The most that the device holds at once; video_size: frames, height, width."""
        pipe = self.backbone.pipe
        transformer = sum(p.numel() * p.element_size() for p in pipe.transformer.parameters())
        vae = sum(p.numel() * p.element_size() for p in pipe.vae.parameters())
        text = self._text_parameters() * self.dtype.itemsize
        coding = self._vae_peak(video_size)
        if offload:
            return max(text, transformer + cost.peak_bytes, vae + coding)
        return text + transformer + vae + max(cost.peak_bytes, coding)

    def rates(self, device: torch.device) -> Rates:
        """From one random block of the model's width and one large attention; a few seconds."""
        config = {k: v for k, v in self.backbone.pipe.transformer.config.items() if not k.startswith(("vace", "_"))}
        meta, real = (
            assembled("wan", config | {"num_layers": 1}, {}, place, self.dtype).pipe.transformer
            for place in ("meta", str(device))
        )
        heads, head_dim = real.config.num_attention_heads, real.config.attention_head_dim
        tokens, width = 8192 if device.type == "cuda" else 512, heads * head_dim

        def inputs(place: torch.device) -> tuple[Tensor, ...]:
            shapes = ((1, tokens, width), (1, TEXT_TOKENS, width), (1, 6, width))
            return tuple(torch.randn(shape, device=place, dtype=self.dtype) for shape in shapes)

        linear, inside = operations_of(lambda: meta.blocks[0](*inputs(torch.device("meta")), None))
        attention = attention_rate(device, self.dtype, 4 * tokens, heads, head_dim)
        given = inputs(device)
        return Rates(linear / (seconds(lambda: real.blocks[0](*given, None), device) - inside / attention), attention)

    def _text_parameters(self) -> int:
        known = known_model(self.model)
        packaged = known is None or known.packaged
        config = (
            UMT5Config.from_pretrained(model_source(self.model), subfolder="text_encoder") if packaged else UMT5_XXL
        )
        with torch.device("meta"):
            return sum(p.numel() for p in UMT5EncoderModel(config).parameters())

    @torch.no_grad()
    def _vae_peak(self, video_size: tuple[int, int, int]) -> int:
        """Encoding or decoding, whichever takes more."""
        (frames, height, width), vae = video_size, self.backbone.pipe.vae
        stride, few = self.backbone.vae_stride, min(frames, VAE_FRAMES)
        video = torch.empty(1, 3, few, height, width, device="meta")
        latents = (vae.config.z_dim, (few - 1) // stride[0] + 1, height // stride[1], width // stride[2])
        coded = torch.empty(1, *latents, device="meta")
        peaks = (
            peak_of(lambda: vae.encode(video).latent_dist.mode()),
            peak_of(lambda: vae.decode(coded, return_dict=False)),
        )
        return max(peaks) + (frames - few) * 3 * height * width * 4


def gigabytes(size: float) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB"


def device_bytes(device: torch.device) -> int:
    """All the memory of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
