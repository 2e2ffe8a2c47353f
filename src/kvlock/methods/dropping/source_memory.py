"""What dropping keeps of the source: keys and values that stand in for the edit's background."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.tap import Kind, Layer
from kvlock.methods.packed import PackedTap

Kept = tuple[Tensor, Tensor]


class SourceMemory(PackedTap):
    """The source's context tokens in every layer, for one forward or for several steps.

    With `host` they wait for the next steps in the host's memory.
    """

    def __init__(self, host: bool):
        super().__init__()
        self.held: dict[int, list[Kept]] = {}
        self._host, self._keeps = host, False
        self._context, self._room = torch.zeros(0, dtype=torch.int64), 0

    @contextmanager
    def extending(
        self,
        backbone: Backbone,
        timestep: Tensor,
        context: Tensor,
        size: int,
        clip: int,
        first: bool,
        keep: bool,
    ) -> Iterator[None]:
        """For a packed forward whose edits have `size` tokens each; the source's stand in for others.

        context: int64, the tokens of the source branch that are handed on. `first`: the source
        branch is there; otherwise what was kept of it with `keep` is used again.
        """
        self._context, self._room, self._keeps = context, size, keep and first
        self.source_branches = int(first)
        held = self.held.pop(clip, [])
        if first:
            held.clear()
        with backbone.tapped(self, timestep, control=True):
            layers = self.layers
            for layer, kept in zip(layers, held):
                layer.key, layer.value = kept
            try:
                yield
                if keep:
                    kept = [(layer.key, layer.value) for layer in layers] if first else held
                    self.held[clip] = kept
            finally:
                for layer in layers:
                    layer.key = layer.value = None

    def from_source(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """The context, with room behind it for an edit's own."""
        setattr(layer, kind, _with_room(tokens[:, self._context], self._room, tokens.device))
        return tokens

    def to_edit(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """The context and the edit's own tokens."""
        stored = getattr(layer, kind)
        if stored.shape[1] == len(self._context):  # from the host
            stored = _with_room(stored, self._room, tokens.device)
        stored[:, len(self._context) :] = tokens  # over those of the branch before
        setattr(layer, kind, stored)
        return stored

    def leave(self) -> None:
        """The layers that are done are let go, kept, or put on the host."""
        super().leave()
        for layer in self.layers:
            if not layer.value_passed or layer.key is None:
                continue
            if not self._keeps:
                layer.key = layer.value = None
            elif self._host and layer.key.shape[1] > len(self._context):
                context = (x[:, : len(self._context)] for x in (layer.key, layer.value))
                layer.key, layer.value = map(_on_host, context)


def _with_room(context: Tensor, room: int, device: torch.device) -> Tensor:
    """Tokens of a source [1, S, D] on the device and, behind them, room for an edit's own."""
    stored = context.new_empty(1, context.shape[1] + room, context.shape[2], device=device)
    stored[:, : context.shape[1]].copy_(context, non_blocking=True)
    return stored


def _on_host(stored: Tensor) -> Tensor:
    pinned = stored.device.type == "cuda"
    return torch.empty_like(stored, device="cpu", pin_memory=pinned).copy_(
        stored, non_blocking=True
    )
