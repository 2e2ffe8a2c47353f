"""What an edit needs of a device, before anything is loaded."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from kvlock.backbones.checkpoints import read_config
from kvlock.backbones.known_models import known_model
from kvlock.backbones.quiet import named
from kvlock.core.config import KVLockConfig
from kvlock.cost.counting import peak_of
from kvlock.cost.dry_run import Cost, denoising_costs, total
from kvlock.cost.free_memory import device_bytes
from kvlock.cost.skeleton import shallow, skeleton
from kvlock.methods.dropping.tokens import computed_latents
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig

HEADROOM = 0.1  # of a device's memory: fragments, and the workspaces of kernels
# Kernels of a VAE's convolutions have workspaces that no tensor shows. ComfyUI's estimate for
# Wan's VAE, from what it saw on GPUs, is 7000 bytes a pixel and byte of dtype (comfy/sd.py): 11.18 GB
# at 832x480 where the tensors take 7.81.
VAE_WORKSPACE = 11.18 / 7.81
VAE_FRAMES = (
    9  # from here on the VAE, which goes frame by frame, needs room for what it gives alone
)
REPEATS = (2, 3)  # of a transformer's layers, on which costs are counted; each more adds the same


@dataclass(frozen=True)
class Place:
    """Where an edit is to run. video_size: frames, height, width; foreground: latents bool
    [F, H, W]; capacity: bytes, what the device has free where it is None; frame_bytes: of the clip's
    frames, which wait in the host's memory."""

    device: torch.device
    video_size: tuple[int, int, int]
    foreground: Tensor
    variants: int = 1
    capacity: int | None = None
    frame_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What there is."""
        return device_bytes(self.device) if self.capacity is None else self.capacity


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's parts; of two transformers, `expert` is the larger one's. `streamed` is
    what group offload holds of it at once, `text_layer` what it holds of the text encoder."""

    transformer: int
    expert: int
    streamed: int
    vae: int
    text: int
    text_layer: int


class Estimator:
    """A model without weights, with the flow shift of a size (height, width)."""

    def __init__(self, model: str, dtype: torch.dtype, size: tuple[int, int] | None = None):
        self.model, self.dtype = model, dtype
        self.backbone = skeleton(model, "meta", dtype, size)

    def latent_size(self, video_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width of the latents.

        Raises ValueError for a clip that the model cannot take.
        """
        stride, patch = self.backbone.vae_stride, self.backbone.patch_size
        multiples = [s * p for s, p in zip(stride, patch)]
        frames, *sides = video_size
        unfit = any(side % multiple for side, multiple in zip(sides, multiples[1:]))
        if unfit or (frames - 1) % multiples[0]:
            raise ValueError(
                f"{sides[1]}x{sides[0]} and {frames} frames do not suit {self.model}; expected sides "
                f"that divide by {multiples[2]} and {multiples[1]}, and {multiples[0]}n+1 frames"
            )
        return (frames - 1) // stride[0] + 1, sides[0] // stride[1], sides[1] // stride[2]

    def cost(
        self,
        foreground: Tensor,
        config: MethodConfig,
        execution: Execution = Execution(),  # noqa: B008
        variants: int = 1,
    ) -> Cost:
        """The denoising, with all of it on the device; foreground: latents bool [F, H, W]."""
        return self._cost(foreground, config, execution.branches, variants)

    def need(self, config: MethodConfig, execution: Execution, place: Place) -> int:
        """Bytes that a device must have free for an edit, with headroom."""
        on_host = execution.source_store == "host"
        config = _without_held(config) if on_host else config
        cost = self.cost(place.foreground, config, execution, place.variants)
        return _with_headroom(self.peak_bytes(cost.peak_bytes, place, execution))

    def least(self, execution: Execution, place: Place) -> int:
        """What an edit needs at the least, whatever its forwards take; known at once."""
        return _with_headroom(self.peak_bytes(0, place, execution))

    def peak_bytes(self, run: int, place: Place, execution: Execution) -> int:
        """The most that the device holds at once, where the steps take `run` beside the weights."""
        weights = self.weights
        coding = self.coding_bytes(place.video_size, execution.tile_vae)
        if place.device.type == "cpu":
            held = weights.text + weights.transformer + weights.vae + place.frame_bytes
            return held + max(run, coding)
        if execution.offload == "none":
            return max(weights.text, weights.transformer + weights.vae + max(run, coding))
        there, text = weights.expert, weights.text
        if execution.offload == "group":
            there, text = weights.streamed, weights.text_layer
        return max(text, there + run, weights.vae + coding)

    @functools.cached_property
    def weights(self) -> Weights:
        """In the dtype; the VAE's in its own, float32."""
        pipe, text = self.backbone.pipe, self._text_encoder()
        blocks = [b for m in pipe.transformer.children() if isinstance(m, nn.ModuleList) for b in m]
        expert, sizes = _bytes(pipe.transformer), [_bytes(block) for block in blocks]
        return Weights(
            expert * len(self.backbone.spec.experts),
            expert,
            expert - sum(sizes) + max(sizes),
            _bytes(pipe.vae),
            _bytes(text),
            max(_bytes(module, recurse=False) for module in text.modules()),
        )

    def _text_encoder(self) -> nn.Module:
        spec, known = self.backbone.spec, known_model(self.model)
        fetched = known is None or known.packaged
        config = (
            read_config(self.model, "text_encoder/config.json") if fetched else spec.text_config
        )
        cls = getattr(transformers, spec.text_encoder)
        with torch.device("meta"), named(self.model):
            return cls(cls.config_class(**config)).to(self.dtype)

    @functools.lru_cache(maxsize=32)  # noqa: B019
    def _cost(self, foreground: Tensor, config: MethodConfig, branches: Any, variants: int) -> Cost:
        counted = [
            denoising_costs(b, foreground, config, Execution(branches), variants)
            for b in self._shallow or [self.backbone]
        ]
        if not self._shallow:
            return total(counted[0])
        depth, architecture = self.backbone.spec.depth, self.backbone.pipe.transformer.config
        more = depth.repeats(architecture) - REPEATS[1]
        first, second = counted
        return total([(b.deeper(a, more), n) for (a, _), (b, n) in zip(first, second)])

    @functools.cached_property
    def _shallow(self) -> list[Any]:
        """The same with fewer layers; none where there are few already."""
        depth, config = self.backbone.spec.depth, self.backbone.pipe.transformer.config
        if depth is None or depth.repeats(config) <= REPEATS[1]:
            return []
        return [shallow(self.backbone, repeats) for repeats in REPEATS]

    @functools.lru_cache(maxsize=32)  # noqa: B019
    @torch.no_grad()
    def coding_bytes(self, video_size: tuple[int, int, int], tiled: bool) -> int:
        (frames, height, width), vae = video_size, self.backbone.pipe.vae
        vae.enable_tiling() if tiled else vae.disable_tiling()
        few = min(frames, VAE_FRAMES)
        latents = self.latent_size((few, height, width))
        video = torch.empty(1, 3, few, height, width, device="meta")
        channels = vae.config.get("z_dim") or vae.config.latent_channels
        coded = torch.empty(1, channels, *latents, device="meta")
        peaks = (
            peak_of(lambda: vae.encode(video).latent_dist.mode()),
            peak_of(lambda: self.backbone.decoded(coded)),
        )
        growth = 2 * (frames - few) * 3 * height * width * 4  # frames so far, and one more beside
        return round(max(peaks) * VAE_WORKSPACE) + growth


def _with_headroom(size: int) -> int:
    return round(size / (1 - HEADROOM))


def _without_held(config: MethodConfig) -> MethodConfig:
    """The config whose forwards take what this one's take while the source waits on the host."""
    drop = config.drop if isinstance(config, KVLockConfig) else None
    return replace(config, drop=replace(drop, source_refresh=1)) if drop else config  # type: ignore


def _bytes(module: nn.Module, recurse: bool = True) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters(recurse))


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
