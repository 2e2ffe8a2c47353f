"""The seam: hands the source's keys and values to the edit, inside diffusers' own attention processors.

Keys are taken where they leave `attn.norm_k`, values where they leave `attn.to_v` (fused: `to_qkv`). RoPE comes
after and depends on position only, so blending before it equals blending after it. The installed processor is
wrapped, never copied: it is handed a view of `attn` whose projections pass through the tap.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kvlock.core.fusion import fuse_, fusion_weight
from kvlock.core.protocols import AttentionSite

Mode = Literal["off", "hand over", "record", "fuse", "supply", "extend"]
Kind = Literal["key", "value"]


class Tap:
    """What flows through the attention sites of one edit: nothing, or keys and values from the source.

    background: bool [B, L], the tokens that alpha pulls to the source; `foreground_ratio` is the source's weight on
    the others. source_of: int64 [B], the source row of each clip, where some share one. `host` keeps what stays from
    step to step in the host's memory.
    """

    def __init__(
        self,
        background: Tensor,
        foreground_ratio: float = 0.0,
        source_of: Tensor | None = None,
        host: bool = False,
    ):
        self.background = background
        self.foreground_ratio = foreground_ratio
        self.seats: list[Any] = []
        everyone = source_of is None or source_of.tolist() == list(range(len(background)))
        self._source_of = None if everyone else source_of
        self._sources = len(background) if source_of is None else int(source_of.max()) + 1
        self._host = host
        self._held: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._mode: Mode = "off"
        self._packed: tuple[Mode, Mode] = ("record", "fuse")
        self._source_rows = 1
        self._keep = False
        self._rope: tuple[Tensor, Tensor] | None = None
        self._context = background.new_zeros(0, dtype=torch.int64)
        self._room = 0
        self._weight = background.new_zeros(len(background), 1, 1, dtype=torch.float32)
        self._weights: list[Tensor] = []

    @contextmanager
    def handing_over(self, fusion_ratio: Tensor) -> Iterator[None]:
        """For a forward with rows [sources, edits, edits, ...] of B edits each: inside each layer, nothing is kept."""
        self._weight = fusion_weight(fusion_ratio, self.background, self.foreground_ratio)
        self._mode = "hand over"
        yield from self._heard_at(seat for seat in self.seats if not seat.site.control)

    @contextmanager
    def layer_by_layer(self, fusion_ratio: Tensor, clips: Sequence[int]) -> Iterator[None]:
        """For a packed forward with a source and then edit rows of these clips: the same, a row at a time."""
        weight = fusion_weight(fusion_ratio, self.background, self.foreground_ratio)
        self._weights = [weight[clip : clip + 1] for clip in clips]
        self._packed = ("record", "fuse")
        self._source_rows = 1
        self._keep = False
        yield from self._heard_at(seat for seat in self.seats if not seat.site.control)

    @contextmanager
    def extending(self, context: Tensor, size: int, clip: int, first: bool, keep: bool) -> Iterator[None]:
        """For a packed forward whose edit rows have `size` tokens each, and the source's stand in for the others.

        context: int64, the tokens of the source row that are handed on. `first` says that the source row is there;
        otherwise what was kept of it with `keep` is used again.
        """
        self._context, self._room, self._keep = context, size, keep
        self._packed = ("supply", "extend")
        self._source_rows = int(first)
        held = self._held.pop(clip, [])
        if first:
            held.clear()
        for seat, kept in zip(self.seats, held):
            seat.key, seat.value = kept
        yield from self._heard_at(self.seats)
        if keep:
            self._held[clip] = [(seat.key, seat.value) for seat in self.seats] if first else held
        self._forget()

    def enter(self, row: int, rope: tuple[Tensor, Tensor]) -> None:
        """In a packed forward: what follows belongs to this row, whose queries and keys `rope` has to rotate."""
        self._mode, self._rope = self._packed[row >= self._source_rows], rope
        if self._mode == "fuse":
            self._weight = self._weights[row - self._source_rows]

    def leave(self) -> None:
        """In a packed forward: the last row has left a block, whose keys and values go or are put by."""
        self._mode, self._rope = "off", None
        for seat in self.seats:
            if not (self._keep and self._source_rows):
                if seat.heard_value:
                    seat.key = seat.value = None
            elif self._host and seat.key is not None and seat.key.shape[1] > len(self._context):
                seat.key, seat.value = (_on_host(stored[:, : len(self._context)]) for stored in (seat.key, seat.value))

    def through(self, seat: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """Keys or values on their way from the projection to the attention."""
        site, mode = seat.site, self._mode
        if mode == "off":
            return tokens
        if kind == "key":
            tokens = self.rotated(site, tokens)
            seat.heard_key = True
        else:
            seat.heard_value = True
        if mode == "supply":
            setattr(seat, kind, _with_room(tokens[:, self._context], self._room, tokens.device))
            return tokens
        if mode == "extend":
            stored = getattr(seat, kind)
            if stored.shape[1] == len(self._context):  # from the host
                stored = _with_room(stored, self._room, tokens.device)
            stored[:, len(self._context) :] = tokens  # in the place of the last row's
            setattr(seat, kind, stored)
            return stored
        if not site.control:
            axis = site.key_axis if kind == "key" else 1
            self._blend(seat, kind, tokens.movedim(axis, 1)[:, site.video_tokens(self.background.shape[1])])
        return tokens

    @property
    def packed(self) -> bool:
        """Whether a packed forward is under way."""
        return self._rope is not None

    def rotated(self, site: AttentionSite, tokens: Tensor) -> Tensor:
        """Queries or keys at their positions, where a packed forward leaves that to the tap."""
        return tokens if self._rope is None or site.rotate is None else site.rotate(tokens, *self._rope)

    def _blend(self, seat: Any, kind: Kind, video: Tensor) -> None:
        """The paper's fusion, in place."""
        if self._mode == "record":
            setattr(seat, kind, video)
        elif self._mode == "fuse":
            fuse_(video, getattr(seat, kind), self._weight)
        else:
            clips = len(self.background)
            sources = video[:clips] if self._source_of is None else video[self._source_of]
            for row in range(self._sources, len(video), clips):
                fuse_(video[row : row + clips], sources, self._weight)

    def release(self) -> None:
        """Let go of the seats and of all that is held."""
        self.seats = []
        self._held.clear()

    def _forget(self) -> None:
        for seat in self.seats:
            seat.key = seat.value = None

    def _heard_at(self, seats: Iterator[Any] | Sequence[Any]) -> Iterator[None]:
        """Runs the forward; RuntimeError if keys or values of any of the seats did not pass."""
        seats = list(seats)
        for seat in seats:
            seat.heard_key = seat.heard_value = False
        try:
            yield
        except BaseException:
            self._forget()
            raise
        finally:
            self._mode, self._rope = "off", None
        silent = [seat.site.name for seat in seats if not (seat.heard_key and seat.heard_value)]
        if silent:
            raise RuntimeError(
                f"attention site {silent[0]} was never heard during a locked forward; its processor skips norm_k or "
                "to_v, or a step cache skipped its block, so the lock would have no effect there"
            )


@contextmanager
def attached(tap: Tap, sites: list[AttentionSite]) -> Iterator[None]:
    """The tap in place at the sites; their processors are put back afterwards, also after an exception."""
    before = [site.module.processor for site in sites]
    tap.seats = [_wrapper_class(type(processor))(site, tap) for site, processor in zip(sites, before)]
    try:
        for site, seat in zip(sites, tap.seats):
            site.module.processor = seat
        yield
    finally:
        tap.release()
        for site, processor in zip(sites, before):
            site.module.processor = processor


class _AttentionView:
    """An attention module seen by its processor; all but four names fall through."""

    def __init__(self, module: Any, seat: Any):
        self._module, self._seat, self._tap = module, seat, seat.tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    @property
    def fused_projections(self) -> bool:
        """Fused, a row's values could not become more than its queries, as they do in a packed forward."""
        return self._module.fused_projections and not self._tap.packed

    def norm_q(self, query: Tensor) -> Tensor:
        return self._tap.rotated(self._seat.site, self._module.norm_q(query))

    def norm_k(self, key: Tensor) -> Tensor:
        return self._tap.through(self._seat, "key", self._module.norm_k(key))

    def to_v(self, hidden_states: Tensor) -> Tensor:
        return self._tap.through(self._seat, "value", self._module.to_v(hidden_states))

    def to_qkv(self, hidden_states: Tensor) -> Tensor:
        fused = self._module.to_qkv(hidden_states)
        self._tap.through(self._seat, "value", fused.chunk(3, dim=-1)[2])
        return fused


@functools.cache
def _wrapper_class(inner_class: type) -> type:
    """One class per processor class, so that torch.compile sees one piece of code for all layers."""

    class TappedProcessor:
        """A seat of the tap: the wrapped processor, and what is stored of its layer."""

        def __init__(self, site: AttentionSite, tap: Tap):
            self.inner, self.site, self.tap = site.module.processor, site, tap
            self.key: Tensor | None = None
            self.value: Tensor | None = None
            self.heard_key = self.heard_value = False

        # Families filter keyword arguments by the signature of the processor's __call__ and would drop RoPE.
        @functools.wraps(inner_class.__call__)
        def __call__(self, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.inner(_AttentionView(attn, self), *args, **kwargs)

    for name in ("_attention_backend", "_parallel_config"):
        setattr(TappedProcessor, name, _forwarded(name))
    return TappedProcessor


def _forwarded(name: str) -> property:
    """An attribute that lives on the wrapped processor, so that set_attention_backend still reaches it."""
    return property(lambda self: getattr(self.inner, name, None), lambda self, value: setattr(self.inner, name, value))


def _with_room(context: Tensor, room: int, device: torch.device) -> Tensor:
    """Tokens of a source row [1, S, D] on the device and, behind them, room for an edit row's own."""
    stored = context.new_empty(1, context.shape[1] + room, context.shape[2], device=device)
    stored[:, : context.shape[1]].copy_(context, non_blocking=True)
    return stored


def _on_host(stored: Tensor) -> Tensor:
    pinned = stored.device.type == "cuda"
    return torch.empty_like(stored, device="cpu", pin_memory=pinned).copy_(stored, non_blocking=True)
