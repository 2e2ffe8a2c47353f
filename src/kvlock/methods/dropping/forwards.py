"""Steps in which only the foreground is computed, in packed forwards with the source."""

import torch
from torch import Tensor

from kvlock.contract.types import Control, Prompt, Step
from kvlock.core.branches import Branches
from kvlock.core.plugs import Forwards
from kvlock.methods.dropping.source_memory import SourceMemory
from kvlock.methods.dropping.tokens import computed_latents, computed_tokens, token_sets
from kvlock.methods.packed import by_branch, check_packed, members, packed_branch
from kvlock.methods.parts import Drop


class Dropped:
    """`Forwards` around others: steps that do not drop are theirs.

    computed: bool [B, F, H, W], the latents whose tokens are computed, the foreground and a margin.
    """

    def __init__(
        self,
        branches: Branches,
        others: Forwards,
        drop: Drop,
        host: bool,
        foreground: Tensor | None = None,
    ):
        """foreground: the clips' own latents bool [B, F, H, W], or the same where theirs has no data."""
        clips, patch_size = branches.clips, branches.backbone.patch_size
        check_packed(branches.backbone)
        foreground = clips.foreground if foreground is None else foreground
        tokens = computed_tokens(foreground, patch_size, drop.drop_margin)
        self.computed = computed_latents(tokens, patch_size).to(clips.source.device)
        self._sets = [token_sets(tokens[clip], drop.background_context) for clip in clips.firsts]
        self._branches, self._others = branches, others
        self._memory = SourceMemory(host)
        self._keep = drop.refresh_steps(branches.config) > 1

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """As `Branches.predict`; what is dropped is on its way to the source.

        By the straight line that a perfect prediction would take.
        """
        if not step.dropped:
            return self._others.predict(step, latents, source, control)
        branches = self._branches
        predictions = self._foreground(latents, source, step, branches.prompts(step))
        known = branches.sampler.prediction_for(latents, branches.clips.source, step.index)
        return [torch.where(self.computed[:, None], p, known) for p in predictions]

    def _foreground(
        self, latents: Tensor, source: Tensor, step: Step, prompts: list[Prompt]
    ) -> list[Tensor]:
        """The computed tokens alone, the rest zero."""
        clips, backbone = self._branches.clips, self._branches.backbone
        timestep = self._branches.sampler.timestep(step.index)
        outputs, order = [], []
        for number, (first, own) in enumerate(members(clips.firsts, clips.source_of)):
            sets = self._sets[number]
            packed = [packed_branch(clips, latents, p, c, sets.edit) for c in own for p in prompts]
            if step.source:
                prompt = clips.source_prompt
                packed = [packed_branch(clips, source, prompt, first, sets.source), *packed]
            size, memory = len(sets.edit), self._memory
            arguments = backbone, timestep, sets.context, size, number, step.source, self._keep
            with memory.extending(*arguments):
                outputs += backbone.predict_packed(packed, timestep, memory)[int(step.source) :]  # type: ignore[attr-defined]
            order += own
        return by_branch(outputs, order, len(prompts))
