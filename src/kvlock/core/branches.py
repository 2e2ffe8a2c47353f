"""The model's forwards in one step: source, conditional and unconditional, in one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import token_foreground
from kvlock.core.protocols import Backbone, Sampler
from kvlock.core.tap import HandOver
from kvlock.core.types import Control, Prompt, Step, pick


class Branches:
    """What every forward of an edit is made from, for B clips; the core's `Forwards`.

    background: bool [B, L], the tokens that are locked.
    """

    computed = None

    def __init__(self, backbone: Backbone, sampler: Sampler, clips: Clips, config: KVLockConfig):
        self.backbone, self.sampler, self.clips, self.config = backbone, sampler, clips, config
        self.background = ~token_foreground(clips.foreground, backbone.patch_size)
        source_of = torch.tensor(clips.source_of, device=self.background.device)
        inside = config.lock.foreground_ratio if config.lock else 0.0
        self._hand_over = HandOver(
            self.background, inside, source_of if clips.shares_sources else None
        )

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """The conditional's prediction and, where the step is guided, the unconditional's.

        latents, source: [B, C, F, H, W] at the step's noise level. In a step with the source, its
        keys and values are fused in with `control.fusion_ratio`, [B] or [B, L].
        """
        timestep, prompts = self.sampler.timestep(step.index), self.prompts(step)
        edits, condition = [latents] * len(prompts), [self.clips.condition] * len(prompts)
        if not step.source:
            return self.forward(edits, prompts, timestep, condition)
        firsts = self.clips.firsts
        batch = [pick(source, firsts), *edits], [self.clips.source_prompt.pick(firsts), *prompts]
        sites = self.backbone.attention_sites(timestep)
        with self._hand_over.in_batch(sites, control.fusion_ratio, len(firsts)):
            return self.forward(*batch, timestep, [self._first_conditions, *condition])[1:]

    def source_alone(self, source: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for the source with its own prompt, without guidance."""
        firsts = self.clips.firsts
        latents, prompt = pick(source, firsts), self.clips.source_prompt.pick(firsts)
        alone = self.forward([latents], [prompt], timestep, [self._first_conditions])[0]
        return pick(alone, self.clips.source_of)

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
        batch = torch.cat(latents)
        condition = None if self.clips.condition is None else torch.cat(conditions)  # type: ignore[arg-type]
        times = timestep.to(batch.device, non_blocking=True).expand(len(batch))
        predictions = self.backbone.predict(batch, times, Prompt.stack(prompts), condition)
        return list(predictions.split([len(part) for part in latents]))

    @property
    def _first_conditions(self) -> Tensor | None:
        condition = self.clips.condition
        return None if condition is None else pick(condition, self.clips.firsts)
