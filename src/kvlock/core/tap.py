"""The paper's fusion, where keys and values pass on their way into the attention."""

from torch import Tensor

from kvlock.contract.tap import Kind, Layer, Tap
from kvlock.core.fusion import fuse_, fusion_weight


class HandOver(Tap):
    """The paper's fusion inside each layer of one forward: nothing is kept past a layer.

    background: bool [B, L], the tokens that alpha pulls to the source; `foreground_ratio` is the
    source's weight on the others. source_of: int64 [B], the source of each clip, None where each
    has its own.
    """

    def __init__(self, background: Tensor, foreground_ratio: float, source_of: Tensor | None):
        super().__init__()
        self._background, self._foreground_ratio = background, foreground_ratio
        self._source_of, self._sources = source_of, len(background)
        self._weight = background.new_zeros(len(background), 1, 1).float()

    def weighted(self, fusion_ratio: Tensor, sources: int) -> "HandOver":
        """Itself, for a forward of `sources` sources and then, once or twice, B edits."""
        self._weight = fusion_weight(fusion_ratio, self._background, self._foreground_ratio)
        self._sources = sources
        return self

    def through(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """`K = alpha K_src + (1 - alpha) K_new` on background tokens, V the same, in place."""
        clips, video = len(self._background), layer.video(kind, tokens, self._background.shape[1])
        sources = video[:clips] if self._source_of is None else video[self._source_of]
        for first in range(self._sources, len(video), clips):
            fuse_(video[first : first + clips], sources, self._weight)
        return tokens
