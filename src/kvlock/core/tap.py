"""The seam: hands the source's keys and values to the edit, inside diffusers' own attention processors.

Keys are blended where they leave `attn.norm_k`, values where they leave `attn.to_v` (fused: `to_qkv`). RoPE comes
after and depends on position only, so blending before it equals blending after it. The installed processor is
wrapped, never copied: it is handed a view of `attn` whose `norm_k`, `to_v` and `to_qkv` pass through the tap.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kvlock.core.fusion import fuse_, fuse_tokens_, fusion_weight
from kvlock.core.protocols import AttentionSite

Mode = Literal["off", "hand over", "record", "fuse"]


class Tap:
    """What flows through the attention sites of one edit: nothing, or keys and values from the source.

    background: bool [B, L], the tokens that alpha pulls to the source. `foreground_ratio` is the source's weight on
    the others.
    """

    def __init__(self, background: Tensor, foreground_ratio: float = 0.0):
        self.background = background
        self.foreground_ratio = foreground_ratio
        self._kept = torch.ones_like(background) if foreground_ratio else background
        self._mode: Mode = "off"
        self._weight = background.new_zeros(len(background), 1, 1, dtype=torch.float32)
        self._stored: dict[tuple[str, str], Tensor] = {}
        self._heard: set[tuple[str, str]] = set()

    @contextmanager
    def handing_over(self, fusion_ratio: Tensor) -> Iterator[None]:
        """For a forward with rows [source, edit, ...] of B clips each: inside each layer, nothing is kept."""
        self._weight = fusion_weight(fusion_ratio, self.background, self.foreground_ratio)
        yield from self._during("hand over")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """For a forward of the source alone: the keys and values that can be needed are kept until `release`."""
        yield from self._during("record")

    @contextmanager
    def fusing(self, fusion_ratio: Tensor) -> Iterator[None]:
        """For a forward of B edit rows after `recording`."""
        self._weight = fusion_weight(fusion_ratio, self.background, self.foreground_ratio)
        yield from self._during("fuse")

    def release(self) -> None:
        """Forget what was recorded."""
        self._stored.clear()

    def _during(self, mode: Mode) -> Iterator[None]:
        self._mode = mode
        self._heard.clear()
        try:
            yield
        finally:
            self._mode = "off"

    def check_heard(self, sites: list[AttentionSite]) -> None:
        """Raise RuntimeError if keys or values of any site did not pass during the last locked forward."""
        silent = [s.name for s in sites for kind in ("key", "value") if (s.name, kind) not in self._heard]
        if silent:
            raise RuntimeError(
                f"attention site {silent[0]} was never heard during a locked forward; its processor skips norm_k or "
                "to_v, or a step cache skipped its block, so the lock would have no effect there"
            )

    def through(self, site: AttentionSite, kind: Literal["key", "value"], tokens: Tensor) -> Tensor:
        """Keys or values on their way from the projection to the attention; blended in place."""
        if self._mode == "off":
            return tokens
        self._heard.add((site.name, kind))
        axis = site.key_axis if kind == "key" else 1
        video = tokens.movedim(axis, 1)[:, site.video_tokens(self.background.shape[1])]
        clips = len(self.background)
        if self._mode == "record":
            self._stored[site.name, kind] = video[self._kept]
        elif self._mode == "fuse":
            fuse_tokens_(video, self._stored[site.name, kind], self._weight, self._kept)
        else:
            for row in range(clips, len(video), clips):
                fuse_(video[row : row + clips], video[:clips], self._weight)
        return tokens


@contextmanager
def attached(tap: Tap, sites: list[AttentionSite]) -> Iterator[None]:
    """The tap in place at the sites; their processors are put back afterwards, also after an exception."""
    before = [site.module.processor for site in sites]
    try:
        for site in sites:
            site.module.processor = _wrapper_class(type(site.module.processor))(site, tap)
        yield
    finally:
        for site, processor in zip(sites, before):
            site.module.processor = processor


class _AttentionView:
    """An attention module seen by its processor; all but three names fall through."""

    def __init__(self, module: Any, site: AttentionSite, tap: Tap):
        self._module, self._site, self._tap = module, site, tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def norm_k(self, key: Tensor) -> Tensor:
        return self._tap.through(self._site, "key", self._module.norm_k(key))

    def to_v(self, hidden_states: Tensor) -> Tensor:
        return self._tap.through(self._site, "value", self._module.to_v(hidden_states))

    def to_qkv(self, hidden_states: Tensor) -> Tensor:
        fused = self._module.to_qkv(hidden_states)
        self._tap.through(self._site, "value", fused.chunk(3, dim=-1)[2])
        return fused


@functools.cache
def _wrapper_class(inner_class: type) -> type:
    """One class per processor class, so that torch.compile sees one piece of code for all layers."""

    class TappedProcessor:
        def __init__(self, site: AttentionSite, tap: Tap):
            self.inner, self.site, self.tap = site.module.processor, site, tap

        # Families filter keyword arguments by the signature of the processor's __call__ and would drop RoPE.
        @functools.wraps(inner_class.__call__)
        def __call__(self, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.inner(_AttentionView(attn, self.site, self.tap), *args, **kwargs)

    for name in ("_attention_backend", "_parallel_config"):
        setattr(TappedProcessor, name, _forwarded(name))
    return TappedProcessor


def _forwarded(name: str) -> property:
    """An attribute that lives on the wrapped processor, so that set_attention_backend still reaches it."""
    return property(lambda self: getattr(self.inner, name, None), lambda self, value: setattr(self.inner, name, value))
