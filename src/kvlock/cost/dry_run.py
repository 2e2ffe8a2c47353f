"""What an edit will cost, from its own forwards on tensors without data: nothing is loaded, nothing is computed.

Every kind of step runs once on torch's meta device, through the code that edits: floating-point operations are counted
as they pass, and memory as it is taken and given back.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.rows import Rows
from kvlock.core.schedule import step_kind
from kvlock.core.tap import Tap, attached
from kvlock.core.tokens import computed_latents, computed_tokens, token_sets
from kvlock.core.types import Control


@dataclass(frozen=True)
class Cost:
    """Rows through the model, operations (a multiplication and an addition are two), bytes beyond the weights."""

    rows: int
    linear_flops: int
    attention_flops: int
    peak_bytes: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.rows + other.rows,
            self.linear_flops + other.linear_flops,
            self.attention_flops + other.attention_flops,
            max(self.peak_bytes, other.peak_bytes),
        )


@torch.no_grad()
def denoising_cost(
    backbone: WanBackbone | WanVACEBackbone, foreground: Tensor, config: KVLockConfig, variants: int = 1
) -> Cost:
    """All steps of `variants` edits of one clip together, on a meta backbone.

    foreground: latents bool [F, H, W], on the CPU. Where the variance sets alpha, the source counts in every step that
    it may be needed in.
    """
    rows = _rows_without_data(backbone, foreground, config, variants)
    latents, costs = rows.clips.start, {}
    total, control = Cost(0, 0, 0, 0), Control(latents.new_ones(variants), latents.new_ones(variants))
    with attached(rows.tap, backbone.attention_sites()), _Memory() as memory:
        for step in range(config.first_step, config.num_inference_steps):
            kind = step_kind(config, step, rows.sampler.sigmas[step])
            if kind not in costs:
                memory.peak = memory.live
                operations = operations_of(lambda step=step: rows.predict(step, latents, latents, control))
                costs[kind] = Cost(len(latents) * (1 + kind.guided) + kind.with_source, *operations, memory.peak)
            total += costs[kind]
    if config.source_path == "inverted":
        timestep = rows.sampler.timestep(0)
        operations = operations_of(lambda: rows.source_alone(latents, timestep))
        for _ in range(config.num_inference_steps + 1):
            total += Cost(1, *operations, 0)
    if config.source_store == "host" and config.refresh_steps > 1:
        alone = denoising_cost(backbone, foreground, replace(config, source_refresh=1), variants)
        return replace(total, peak_bytes=alone.peak_bytes)
    return total


@torch.no_grad()
def operations_of(function: Callable[[], Any]) -> tuple[int, int]:
    """Floating-point operations outside and inside attention; on the meta device."""
    with FlopCounterMode(display=False) as linear, _Attention() as attention:
        function()
    return linear.get_total_flops(), attention.flops


@torch.no_grad()
def peak_of(function: Callable[[], Any]) -> int:
    """The most bytes that tensors made in `function` take at once; on the meta device."""
    with _Memory() as memory:
        function()
    return memory.peak


def _rows_without_data(
    backbone: WanBackbone | WanVACEBackbone, foreground: Tensor, config: KVLockConfig, variants: int
) -> Rows:

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(variants, *shape, device="meta", dtype=dtype)

    architecture, size = backbone.pipe.transformer.config, foreground.shape
    latents = empty(architecture.in_channels, *size)
    told = architecture.get("vace_in_channels", 0)
    condition = empty(told, *size) if told else None
    prompt = empty(backbone.max_sequence_length, architecture.text_dim)
    computed = computed_tokens(foreground[None], backbone.patch_size, config.drop_margin)
    background = ~computed_tokens(foreground[None], backbone.patch_size, 0).flatten(1)
    one_source = torch.zeros(variants, dtype=torch.int64)
    return Rows(
        backbone,
        backbone.sampler(config.num_inference_steps, multistep=False),
        Clips(latents, latents, latents, empty(*size, dtype=torch.bool), condition, [0], one_source.tolist()),
        Tap(background.expand(variants, -1).to("meta"), config.foreground_ratio, one_source),
        prompt,
        [prompt] * (2 if config.guidance_scale > 1 else 1),
        computed_latents(computed, backbone.patch_size).expand(variants, -1, -1, -1).to("meta"),
        [token_sets(computed[0], config.background_context)],
        config,
    )


class _Attention(TorchFunctionMode):
    """Attention as a kernel computes it that never holds the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (kwargs[n] if n in kwargs else args[i] for i, n in enumerate(("query", "key", "value")))
        self.flops += 2 * query.numel() * key.shape[-2] + 2 * query[..., 0].numel() * value[0, 0].numel()
        return torch.empty_like(query[..., :1]).expand(*query.shape[:-1], value.shape[-1]).contiguous()


class _Memory(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {storage._cdata for storage in _storages((args, kwargs))}  # a view's is not new, nor is a weight's
        for storage in _storages(result):
            if storage._cdata not in before | self._alive:
                self._alive.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
