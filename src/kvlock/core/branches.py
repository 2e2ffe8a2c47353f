"""The model's forwards in one step: source, conditional and unconditional, in one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone, Sampler
from kvlock.contract.types import Control, Prompt, Step, pick
from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import token_foreground
from kvlock.core.tap import HandOver


class Branches:
    """What every forward of an edit is made from, for B clips; the core's `Forwards`.

    background: bool [B, L], the tokens locked with alpha; `inside` is the lock of the others.
    """

    computed = None

    def __init__(self, backbone: Backbone, sampler: Sampler, clips: Clips, config: KVLockConfig):
        self.backbone, self.sampler, self.clips, self.config = backbone, sampler, clips, config
        self.background = ~token_foreground(clips.foreground, backbone.patch_size)
        injection = config.lock and config.lock.injection
        self.inside = injection.foreground_ratio if injection else 0.0
        shared = len(clips.firsts) < len(clips.source_of)
        source_of = torch.tensor(clips.source_of).to(self.background.device) if shared else None
        self._hand_over = HandOver(self.background, self.inside, source_of)

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """The conditional's prediction and, where the step is guided, the unconditional's.

        latents, source: [B, C, F, H, W] at the step's noise level. In a step with the source, its
        keys and values are fused in with `control.fusion_ratio`, [B] or [B, L].
        """
        assert not step.dropped, "steps that drop need `methods.edit.edit_clips`, which wraps these"
        clips, firsts, timestep = self.clips, self.clips.firsts, self.sampler.timestep(step.index)
        prompts = self.prompts(step)
        batch, conditions = [latents] * len(prompts), [clips.condition] * len(prompts)
        if not step.source:
            return self.forward(batch, prompts, timestep, conditions)
        batch, prompts = (
            [pick(source, firsts), *batch],
            [clips.source_prompt.pick(firsts), *prompts],
        )
        conditions = [c if c is None else pick(c, firsts) for c in conditions[:1]] + conditions
        tap = self._hand_over.weighted(control.fusion_ratio, len(firsts))
        with self.backbone.tapped(tap, timestep):
            return self.forward(batch, prompts, timestep, conditions)[1:]

    def prompts(self, step: Step) -> list[Prompt]:
        """Of the conditional branch and, where the step is guided, of the unconditional."""
        return [self.clips.prompt, self.clips.negative_prompt][: 1 + step.guided]

    def forward(
        self,
        latents: list[Tensor],
        prompts: list[Prompt],
        timestep: Tensor,
        conditions: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """One forward of several branches of any number of clips."""
        batch, given = torch.cat(latents), [c for c in conditions if c is not None]
        condition = torch.cat(given) if given else None
        times = timestep.expand(len(batch))
        predictions = self.backbone.predict(batch, times, Prompt.stack(prompts), condition)
        return list(predictions.split([len(part) for part in latents]))
