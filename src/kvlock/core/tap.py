"""The seam: keys and values of the model's self-attention, handed from the source to the edit.

Keys are taken where they leave `attn.norm_k`, values where they leave `attn.to_v` (fused: `to_qkv`).
RoPE comes after and depends on position only, so blending before it equals blending after it.
The installed processor is wrapped, never copied: it gets a view of `attn` whose projections pass
through the tap.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from kvlock.core.fusion import fuse_, fusion_weight
from kvlock.core.protocols import AttentionSite

Kind = Literal["key", "value"]


class Tap:
    """What keys and values pass through at some sites; a subclass says what becomes of them there."""

    packed = (
        False  # whether a packed forward is under way, which leaves rotary embeddings to the tap
    )

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self._wrapped: dict[str, Any] = {}

    def through(self, layer: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """Keys or values of a layer on their way from the projection to the attention."""
        raise NotImplementedError

    def rotated(self, site: AttentionSite, tokens: Tensor) -> Tensor:
        """Queries of a layer at their positions, where they are not rotated later."""
        return tokens

    @contextmanager
    def attached(self, sites: Sequence[AttentionSite]) -> Iterator[list[Any]]:
        """The tap in place for a forward; the processors are put back afterwards, in any case.

        Gives the layers, a wrapped processor each. RuntimeError if one of them was not run.
        """
        before = [site.module.processor for site in sites]
        self.layers = layers = [self._layer(site) for site in sites]
        try:
            for site, layer in zip(sites, layers):
                site.module.processor, layer.tap = layer, self
            yield layers
        finally:
            for site, layer, processor in zip(sites, layers, before):
                site.module.processor, layer.tap = (
                    processor,
                    None,
                )  # no cycle may hold keys and values
            self.layers = []
        silent = [x.site.name for x in layers if not (x.key_passed and x.value_passed)]
        if silent:
            raise RuntimeError(
                f"attention site {silent[0]} was not run in a locked forward; its processor skips "
                "norm_k or to_v, or a step cache skipped its block, so the lock has no effect there"
            )

    def _layer(self, site: AttentionSite) -> Any:
        """The same wrapper in every step, so that compiled code stays valid."""
        layer, processor = self._wrapped.get(site.name), site.module.processor
        if layer is None or layer.inner is not processor:
            layer = self._wrapped[site.name] = _wrapper_class(type(processor))(site)
        layer.key_passed = layer.value_passed = False
        return layer


class HandOver(Tap):
    """The paper's fusion inside each layer of one forward: nothing is kept past a layer.

    background: bool [B, L], the tokens that alpha pulls to the source; `foreground_ratio` is the
    source's weight on the others. source_of: int64 [B], the source of each clip, None where each
    has its own.
    """

    def __init__(self, background: Tensor, foreground_ratio: float, source_of: Tensor | None):
        super().__init__()
        self._background, self._foreground_ratio = background, foreground_ratio
        self._source_of = source_of
        self._sources = len(background)
        self._weight = background.new_zeros(len(background), 1, 1).float()

    @contextmanager
    def in_batch(
        self, sites: Sequence[AttentionSite], fusion_ratio: Tensor, sources: int
    ) -> Iterator[None]:
        """For a forward of `sources` sources and then, once or twice, B edits."""
        self._weight = fusion_weight(fusion_ratio, self._background, self._foreground_ratio)
        self._sources = sources
        with self.attached([site for site in sites if not site.control]):
            yield

    def through(self, layer: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """`K = alpha K_src + (1 - alpha) K_new` on background tokens, V the same, in place."""
        clips, video = (
            len(self._background),
            video_tokens(layer.site, kind, tokens, self._background),
        )
        sources = video[:clips] if self._source_of is None else video[self._source_of]
        for first in range(self._sources, len(video), clips):
            fuse_(video[first : first + clips], sources, self._weight)
        return tokens


def video_tokens(site: AttentionSite, kind: Kind, tokens: Tensor, background: Tensor) -> Tensor:
    """The view of keys or values that is the video's alone, tokens on axis 1."""
    axis = site.key_axis if kind == "key" else 1
    return tokens.movedim(axis, 1)[:, site.video_tokens(background.shape[1])]


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
        return self._tap.rotated(self._layer.site, self._module.norm_q(query))

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
def _wrapper_class(inner_class: type) -> type:
    """One class per processor class, so that torch.compile sees one piece of code for all layers."""

    class TappedProcessor:
        """A layer of the tap: the wrapped processor, and what is stored of the layer."""

        def __init__(self, site: AttentionSite):
            self.inner, self.site = site.module.processor, site
            self.tap: Tap | None = None
            self.key: Tensor | None = None
            self.value: Tensor | None = None
            self.key_passed = self.value_passed = False

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
