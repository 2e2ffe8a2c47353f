"""The seam: where keys and values leave a diffusers attention module, a tap can change them.

Keys are taken where they leave `attn.norm_k`, values where they leave `attn.to_v` (fused: `to_qkv`).
RoPE comes after and depends on position only, so blending before it equals blending after it.
The installed processor is wrapped, never copied: it gets a view of `attn` whose projections pass
through the tap.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from kvlock.contract.tap import Kind, Tap


@dataclass(frozen=True)
class AttentionSite:
    """One self-attention layer of a video DiT: an attention module and how its tokens lie.

    `key_axis` is the token axis of what `norm_k` gives. Values are always [B, S, inner].
    `text` says where text tokens stand beside the video's in keys and values, if they do.
    `control` marks a control stream's layer: alpha leaves it alone, but it matters where the
    background is dropped. `rotate` (tokens [B, S, inner], cos, sin) is the model's rotary
    embedding, which packed forwards need.
    """

    name: str
    module: Any
    key_axis: int = 1
    text: Literal["none", "before", "after"] = "none"
    control: bool = False
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


@contextmanager
def attached(tap: Tap, sites: Sequence[AttentionSite]) -> Iterator[None]:
    """The tap in place for a forward; the processors are put back afterwards, in any case.

    RuntimeError if keys or values of a site did not pass.
    """
    before = [site.module.processor for site in sites]
    layers = [_layer(tap, site) for site in sites]
    tap.layers = layers
    try:
        for site, layer in zip(sites, layers):
            site.module.processor, layer.tap = layer, tap
        yield
    finally:
        for site, layer, processor in zip(sites, layers, before):
            site.module.processor, layer.tap = processor, None  # no cycle may hold keys and values
        tap.layers = []
    silent = [x.name for x in layers if not (x.key_passed and x.value_passed)]
    if silent:
        raise RuntimeError(
            f"attention site {silent[0]} was not run in a locked forward; its processor skips "
            "norm_k or to_v, or a step cache skipped its block, so the lock has no effect there"
        )


def _layer(tap: Tap, site: AttentionSite) -> Any:
    """The same wrapper in every step, so that compiled code stays valid."""
    layer, processor = tap.wrapped.get(site.name), site.module.processor
    if layer is None or layer.inner is not processor:
        layer = tap.wrapped[site.name] = _layer_class(type(processor))(site)
    layer.key_passed = layer.value_passed = False
    return layer


class _AttentionView:
    """An attention module as its processor sees it; all but a few names fall through."""

    def __init__(self, module: Any, layer: Any):
        self._module, self._layer, self._tap = module, layer, layer.tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    @property
    def fused_projections(self) -> bool:
        """Fused, a branch's values could not become more than its queries, as packed ones do."""
        return self._module.fused_projections and not self._tap.packed

    def norm_q(self, query: Tensor) -> Tensor:
        return self._tap.rotated(self._layer, self._module.norm_q(query))

    def norm_k(self, key: Tensor) -> Tensor:
        self._layer.key_passed = True
        return self._tap.through(self._layer, "key", self._module.norm_k(key))

    def to_v(self, hidden_states: Tensor) -> Tensor:
        self._layer.value_passed = True
        return self._tap.through(self._layer, "value", self._module.to_v(hidden_states))

    def to_qkv(self, hidden_states: Tensor) -> Tensor:
        self._layer.value_passed = True
        fused = self._module.to_qkv(hidden_states)
        self._tap.through(self._layer, "value", fused.chunk(3, dim=-1)[2])
        return fused


@functools.cache
def _layer_class(inner_class: type) -> type:
    """One class per processor class, so that torch.compile sees one piece of code for all layers."""

    class TappedProcessor:
        """The core's `Layer`: the wrapped processor, and what a tap stores of the layer."""

        def __init__(self, site: AttentionSite):
            self.inner, self.site = site.module.processor, site
            self.name, self.control, self.rotate = site.name, site.control, site.rotate
            self.tap: Tap | None = None
            self.key: Tensor | None = None
            self.value: Tensor | None = None
            self.key_passed = self.value_passed = False

        def video(self, kind: Kind, tokens: Tensor, count: int) -> Tensor:
            axis, before = self.site.key_axis if kind == "key" else 1, self.site.text == "before"
            return tokens.movedim(axis, 1)[:, slice(-count, None) if before else slice(0, count)]

        # Families filter keyword arguments by the signature of `__call__` and would drop RoPE.
        @functools.wraps(inner_class.__call__)
        def __call__(self, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.inner(_AttentionView(attn, self), *args, **kwargs)

    for name in ("_attention_backend", "_parallel_config"):
        setattr(TappedProcessor, name, _forwarded(name))
    return TappedProcessor


def _forwarded(name: str) -> property:
    """An attribute of the wrapped processor, so that set_attention_backend still reaches it."""
    return property(
        lambda self: getattr(self.inner, name, None),
        lambda self, value: setattr(self.inner, name, value),
    )
