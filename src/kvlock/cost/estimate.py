"""What an edit needs of a device, before anything is loaded, and which way of running it the device has room for."""

import functools
import os
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path

import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from kvlock.backbones.known_models import known_model
from kvlock.backbones.loading import model_source
from kvlock.core.config import KVLockConfig
from kvlock.cost.dry_run import Cost, denoising_cost, operations_of, peak_of
from kvlock.cost.rates import attention_rate, seconds
from kvlock.cost.skeleton import assembled, skeleton
from kvlock.methods.dropping.tokens import computed_latents

UMT5_XXL = UMT5Config(
    vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64
)
SMALL_BATCH_BYTES = 1e9
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
TEXT_TOKENS = 512
VAE_FRAMES = (
    9  # from here on the VAE, which goes frame by frame, needs no more than room for what it gives
)


@dataclass(frozen=True)
class Rates:
    """What the device reaches on this model, FLOP a second."""

    linear: float
    attention: float

    def seconds(self, cost: Cost) -> float:
        """How long an edit's denoising takes."""
        return cost.linear_flops / self.linear + cost.attention_flops / self.attention


@dataclass(frozen=True)
class Place:
    """Where an edit is to run: video_size is frames, height, width; foreground as in `denoising_cost`."""

    device: torch.device
    video_size: tuple[int, int, int]
    foreground: Tensor
    variants: int = 1
    offload: bool = False


class Estimator:
    """A model without weights."""

    def __init__(self, model: str, dtype: torch.dtype, tile_vae: bool = False):
        self.model, self.dtype, self.tiled = model, dtype, tile_vae
        self.backbone = skeleton(model, "meta", dtype)
        if tile_vae:
            self.backbone.pipe.vae.enable_tiling()

    def latent_size(self, video_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width of the latents. Raises ValueError for a clip that the model cannot take."""
        multiples = [
            stride * patch
            for stride, patch in zip(self.backbone.vae_stride, self.backbone.patch_size)
        ]
        frames, *sides = video_size
        if (frames - 1) % multiples[0] or any(
            side % multiple for side, multiple in zip(sides, multiples[1:])
        ):
            raise ValueError(
                f"{sides[1]}x{sides[0]} and {frames} frames do not suit {self.model}; expected sides that divide by "
                f"{multiples[2]} and {multiples[1]}, and {multiples[0]}n+1 frames"
            )
        stride = self.backbone.vae_stride
        return (frames - 1) // stride[0] + 1, sides[0] // stride[1], sides[1] // stride[2]

    @functools.lru_cache(maxsize=16)  # noqa: B019
    def cost(self, foreground: Tensor, config: KVLockConfig, variants: int = 1) -> Cost:
        """The denoising; foreground: latents bool [F, H, W]."""
        return denoising_cost(self.backbone, foreground, config, variants)

    def peak_bytes(self, cost: Cost, video_size: tuple[int, int, int], offload: bool) -> int:
        """The most that the device holds at once; video_size: frames, height, width."""
        pipe = self.backbone.pipe
        transformer = sum(p.numel() * p.element_size() for p in pipe.transformer.parameters())
        vae = sum(p.numel() * p.element_size() for p in pipe.vae.parameters())
        text = self._text_parameters * self.dtype.itemsize
        coding = self._vae_peak(video_size)
        if offload:
            return max(text, transformer + cost.peak_bytes, vae + coding)
        return text + transformer + vae + max(cost.peak_bytes, coding)

    def need(self, config: KVLockConfig, place: Place) -> int:
        """`peak_bytes` of an edit."""
        cost = self.cost(place.foreground, config, place.variants)
        return self.peak_bytes(cost, place.video_size, place.offload)

    def rates(self, device: torch.device) -> Rates:
        """From one random block of the model's width and one large attention; a few seconds."""
        config = {
            k: v
            for k, v in self.backbone.pipe.transformer.config.items()
            if not k.startswith(("vace", "_"))
        }
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
        return Rates(
            linear / (seconds(lambda: real.blocks[0](*given, None), device) - inside / attention),
            attention,
        )

    @functools.cached_property
    def _text_parameters(self) -> int:
        known = known_model(self.model)
        packaged = known is None or known.packaged
        config = (
            UMT5Config.from_pretrained(model_source(self.model), subfolder="text_encoder")
            if packaged
            else UMT5_XXL
        )
        with torch.device("meta"):
            return sum(p.numel() for p in UMT5EncoderModel(config).parameters())

    @functools.lru_cache(maxsize=1)  # noqa: B019
    @torch.no_grad()
    def _vae_peak(self, video_size: tuple[int, int, int]) -> int:
        """Encoding or decoding, whichever takes more."""
        (frames, height, width), vae = video_size, self.backbone.pipe.vae
        few = min(frames, VAE_FRAMES)
        video = torch.empty(1, 3, few, height, width, device="meta")
        coded = torch.empty(
            1, vae.config.z_dim, *self.latent_size((few, height, width)), device="meta"
        )
        peaks = (
            peak_of(lambda: vae.encode(video).latent_dist.mode()),
            peak_of(lambda: vae.decode(coded, return_dict=False)),
        )
        return max(peaks) + (frames - few) * 3 * height * width * 4


def settle(
    estimator: Estimator, config: KVLockConfig, given: set[str], place: Place
) -> KVLockConfig:
    """The config with `rows` and `source_store` chosen, where they are not `given`, by what each would need.

    Rows run one by one where a batch would need a gigabyte more than the weights; the source's keys and values wait in
    the host's memory where the device has no room. Raises ValueError, with what would fit, where the edit does not.
    """
    there = device_bytes(place.device)
    batch = estimator.cost(place.foreground, config, place.variants).peak_bytes
    if "rows" not in given and batch > SMALL_BATCH_BYTES:
        config = replace(config, rows="sequential")
    if (
        "source_store" not in given
        and _may_hold_on_host(config, place)
        and estimator.need(config, place) > there
    ):
        config = replace(config, source_store="host")
    need = estimator.need(config, place)
    if need > there:
        raise ValueError(
            f"the edit needs about {gigabytes(need)} on {place.device}, which has {gigabytes(there)}; "
            f"try {_what_fits(estimator, config, place, there)} (--no-memory-check goes on regardless)"
        )
    return config


def _what_fits(estimator: Estimator, config: KVLockConfig, place: Place, there: int) -> str:
    """The fewest flags with which the edit takes no more than `there`."""
    tiled = Estimator(estimator.model, estimator.dtype, tile_vae=True)
    possible = {
        "--rows sequential": config.rows == "batched",
        "--source-store host": _may_hold_on_host(config, place),
        "--tile-vae": not estimator.tiled,
        "--offload": not place.offload and place.device.type != "cpu",
    }
    flags = [flag for flag, holds in possible.items() if holds]
    for tried in chain.from_iterable(
        combinations(flags, count) for count in range(1, len(flags) + 1)
    ):
        rows = "sequential" if "--rows sequential" in tried else config.rows
        store = "host" if "--source-store host" in tried else config.source_store
        model = tiled if "--tile-vae" in tried else estimator
        offload = place.offload or "--offload" in tried
        cost = estimator.cost(
            place.foreground, replace(config, rows=rows, source_store=store), place.variants
        )
        size = model.peak_bytes(cost, place.video_size, offload)
        if size <= there:
            return f"{' '.join(tried)}, which needs {gigabytes(size)}"
    return "a shorter or smaller clip"


def _may_hold_on_host(config: KVLockConfig, place: Place) -> bool:
    return (
        place.device.type != "cpu" and config.refresh_steps > 1 and config.source_store == "device"
    )


def centred_mask(
    latent_size: tuple[int, int, int], patch_size: tuple[int, int, int], share: float
) -> Tensor:
    """A rectangle of whole tokens that covers about `share` of each frame: latents bool [F, H, W]."""
    frames, height, width = (size // patch for size, patch in zip(latent_size, patch_size))
    rows = min(height, max(1, round(height * share**0.5)))
    columns = min(width, max(1, round(share * height * width / rows)))
    tokens = torch.zeros(1, frames, height, width, dtype=torch.bool)
    top, left = (height - rows) // 2, (width - columns) // 2
    tokens[..., top : top + rows, left : left + columns] = True
    return computed_latents(tokens, patch_size)[0]


def gigabytes(size: float) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB"


def device_bytes(device: torch.device) -> int:
    """The memory of a GPU that is free; on the CPU all there is, or what the container may have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [Path(file).read_text().strip() for file in CONTAINER_LIMITS if Path(file).is_file()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(limit) for limit in limits if limit.isdigit())])
