"""Packed forwards, branch after branch through each block: their tap, their inputs, their outputs."""

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone, PackedBranch
from kvlock.contract.tap import Kind, Layer, Tap
from kvlock.contract.types import Prompt
from kvlock.core.clips import Clips
from kvlock.methods.refusals import CANNOT_DROP


class PackedTap(Tap):
    """A tap that a packed forward reports to (`Flow`): source branches first, then the edits'."""

    def __init__(self) -> None:
        super().__init__()
        self.source_branches = 1
        self._is_source = True  # compiled code would be made anew for a branch's number
        self._rope: tuple[Tensor, Tensor] | None = None

    def enter(self, branch: int, rope: tuple[Tensor, Tensor]) -> None:
        """What follows belongs to this branch, whose queries and keys `rope` has to rotate."""
        self._is_source, self._rope = branch < self.source_branches, rope

    def leave(self) -> None:
        """The last branch has left a block."""
        self._rope = None

    @property
    def packed(self) -> bool:  # type: ignore[override]
        """Whether a block of a packed forward is under way."""
        return self._rope is not None

    def rotated(self, layer: Layer, tokens: Tensor) -> Tensor:
        """Queries or keys at their positions, which a packed forward leaves to the tap."""
        if self._rope is None or layer.rotate is None:
            return tokens
        return layer.rotate(tokens, *self._rope)

    def through(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Rotate keys, then do what belongs to the branch."""
        if kind == "key":
            tokens = self.rotated(layer, tokens)
        run = self.from_source if self._is_source else self.to_edit
        return run(layer, kind, tokens)

    def from_source(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Keys or values of the source."""
        raise NotImplementedError

    def to_edit(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Keys or values of an edit's branch."""
        raise NotImplementedError


def check_packed(backbone: Backbone) -> None:
    """Raise ValueError for a family whose forwards cannot be packed."""
    if not hasattr(backbone, "predict_packed"):
        raise ValueError(CANNOT_DROP)


def packed_branch(
    clips: Clips, latents: Tensor, prompt: Prompt, clip: int, tokens: Tensor
) -> PackedBranch:
    """One clip's branch of these tokens."""
    one, condition = slice(clip, clip + 1), clips.condition
    return PackedBranch(
        latents[one], prompt.pick([clip]), None if condition is None else condition[one], tokens
    )


def members(firsts: list[int], source_of: list[int]) -> list[tuple[int, list[int]]]:
    """Of each source one clip, and all clips that share it."""
    return [
        (first, [clip for clip, its_source in enumerate(source_of) if its_source == number])
        for number, first in enumerate(firsts)
    ]


def by_branch(outputs: list[Tensor], order: list[int], branches: int) -> list[Tensor]:
    """From one clip after the other, in `order` and each with all its branches, to [B, ...] a branch."""
    numbers = [order.index(clip) for clip in range(len(order))]
    return [
        torch.cat([outputs[number * branches + branch] for number in numbers])
        for branch in range(branches)
    ]
