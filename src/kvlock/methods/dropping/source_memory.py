"""What dropping keeps of the source: keys and values that stand in for the edit's background."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.tap import Kind, Layer
from kvlock.methods.dropping.host_store import HostStore, Kept
from kvlock.methods.packed import PackedTap


class SourceMemory(PackedTap):
    """The source's context tokens in every layer, for one forward or for several steps.

    With `host` they wait for the next steps in the host's memory. There each block finds its own on
    the device when it begins, while those of the next one are on their way.
    """

    def __init__(self, host: bool):
        super().__init__()
        self.held: dict[int, list[Kept]] = {}
        self._store, self._keeps = HostStore() if host else None, False
        self._context, self._room, self._clip = torch.zeros(0, dtype=torch.int64), 0, 0
        self._order: list[int] = []  # the layers as blocks come to them
        self._coming: list[tuple[int, Kept]] = []  # the layers to come and what is theirs
        self._next: Kept | None = None  # on its way to the device

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
        self._context, self._room, self._clip = context, size, clip
        self._keeps, self.source_branches = keep and first, int(first)
        held = self.held.pop(clip, [])
        if first:
            held.clear()
            self._order = []
        with backbone.tapped(self, timestep, control=True):
            layers = self.layers
            if self._store:
                self._coming = [(number, held[number]) for number in self._order]
            else:
                for layer, kept in zip(layers, held):
                    layer.key, layer.value = kept
            try:
                yield
                if keep:
                    kept = [(layer.key, layer.value) for layer in layers] if first else held
                    self.held[clip] = kept
            finally:
                self._coming, self._next = [], None
                for layer in layers:
                    layer.key = layer.value = None

    def enter(self, branch: int, rope: tuple[Tensor, Tensor]) -> None:
        """Before a block's first branch, what it needs of the host has come."""
        super().enter(branch, rope)
        if branch == 0 and self._coming:
            self._arrive(rope[0].device)

    def from_source(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """The context, with room behind it for an edit's own."""
        context = tokens[:, self._context]
        stored = context.new_empty(1, context.shape[1] + self._room, context.shape[2])
        stored[:, : context.shape[1]].copy_(context)
        setattr(layer, kind, stored)
        return tokens

    def to_edit(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """The context and the edit's own tokens."""
        stored = getattr(layer, kind)
        stored[:, len(self._context) :] = tokens  # over those of the branch before
        return stored

    def leave(self) -> None:
        """The layer that is done is let go, kept, or put on the host."""
        super().leave()
        for number, layer in enumerate(self.layers):
            if not layer.value_passed or layer.key is None:
                continue
            if not self._keeps:
                layer.key = layer.value = None
            elif self._store and number not in self._order:
                self._order.append(number)
                kept = (layer.key[:, : len(self._context)], layer.value[:, : len(self._context)])
                layer.key, layer.value = self._store.put(self._clip, number, kept)

    def _arrive(self, device: torch.device) -> None:
        """Give the block's layer what has come, and begin to fetch the next one's."""
        assert self._store
        (number, kept), *self._coming = self._coming
        arrived = self._next or self._store.fetch(kept, self._room, device)
        self._store.arrive()
        self.layers[number].key, self.layers[number].value = arrived
        self._next = None
        if self._coming:
            self._next = self._store.fetch(self._coming[0][1], self._room, device)
