"""FlowEdit's velocities where only the foreground is computed (ours).

Masked FlowEdit leaves the background at the source, so that there z_tar = z_src: the source's keys
and values are the target's but for the prompt, and stand in for them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.types import Prompt
from kvlock.core.clips import Clips
from kvlock.methods.dropping.source_memory import SourceMemory
from kvlock.methods.dropping.tokens import computed_tokens, token_sets
from kvlock.methods.packed import check_packed, packed_branch
from kvlock.methods.parts import Drop

Predict = Callable[[Tensor, Tensor, Tensor], list[Tensor]]


def dropped_velocities(
    backbone: Backbone, clips: Clips, prompts: list[Prompt], drop: Drop, foreground: Tensor
) -> Predict:
    """(z_src, z_tar, timestep) -> the velocity of each prompt, zero where it is not computed.

    Prompts take z_src and z_tar in turn. The first one's branch, the source's, goes through the
    model with the background that the other branches see; they have the foreground alone.
    Raises ValueError for a family whose forwards cannot be packed.
    """
    check_packed(backbone)
    tokens = computed_tokens(foreground, backbone.patch_size, drop.drop_margin)
    of_source = [token_sets(tokens[clip], drop.background_context) for clip in clips.firsts]
    sets = [of_source[source] for source in clips.source_of]
    memory = SourceMemory(host=False)

    def one_clip(latents: tuple[Tensor, Tensor], timestep: Tensor, clip: int) -> list[Tensor]:
        own = sets[clip]
        through = [own.source] + [own.edit] * (len(prompts) - 1)
        packed = [
            packed_branch(clips, latents[i % 2], prompt, clip, tokens)
            for i, (prompt, tokens) in enumerate(zip(prompts, through))
        ]
        size = len(own.edit)
        with memory.extending(backbone, timestep, own.context, size, clip, True, False):
            return backbone.predict_packed(packed, timestep, memory)  # type: ignore[attr-defined]

    def predict(source: Tensor, target: Tensor, timestep: Tensor) -> list[Tensor]:
        clipwise = [one_clip((source, target), timestep, clip) for clip in range(len(sets))]
        return [torch.cat(branches) for branches in zip(*clipwise)]

    return predict
