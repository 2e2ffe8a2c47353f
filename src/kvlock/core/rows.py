"""The model's forwards in one step: rows [source, conditional, unconditional], together or one after the other."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvlock.core.protocols import AttentionSite, Backbone
from kvlock.core.tap import Tap


@dataclass(frozen=True)
class Rows:
    """What every forward of an edit is told, for B clips.

    prompts: the conditional's and, where guidance is on, the unconditional's embeddings, [B, L, D] each.
    condition: [B, ...] or None. `batched` runs all rows in one forward and keeps no keys or values past a layer;
    otherwise the source runs first and its background tokens' keys and values are kept for the step.
    """

    backbone: Backbone
    tap: Tap
    sites: list[AttentionSite]
    source_prompt: Tensor
    prompts: list[Tensor]
    condition: Any
    batched: bool

    def free(self, latents: Tensor, timestep: Tensor) -> list[Tensor]:
        """A prediction per prompt, without the source."""
        if self.batched:
            return self._forward([latents] * len(self.prompts), self.prompts, timestep)
        return [self._forward([latents], [prompt], timestep)[0] for prompt in self.prompts]

    def source_alone(self, source: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for the source with its own prompt, without guidance."""
        return self._forward([source], [self.source_prompt], timestep)[0]

    def locked(self, latents: Tensor, source: Tensor, timestep: Tensor, fusion_ratio: Tensor) -> list[Tensor]:
        """A prediction per prompt, the keys and values of `source` fused in with `fusion_ratio` [B] or [B, L]."""
        if self.batched:
            with self._checked(self.tap.handing_over(fusion_ratio)):
                rows = [source] + [latents] * len(self.prompts)
                return self._forward(rows, [self.source_prompt, *self.prompts], timestep)[1:]
        with self._checked(self.tap.recording()):
            self._forward([source], [self.source_prompt], timestep)
        predictions = []
        for prompt in self.prompts:
            with self._checked(self.tap.fusing(fusion_ratio)):
                predictions += self._forward([latents], [prompt], timestep)
        self.tap.release()
        return predictions

    def _forward(self, rows: list[Tensor], prompts: list[Tensor], timestep: Tensor) -> list[Tensor]:
        condition = None if self.condition is None else torch.cat([self.condition] * len(rows))
        latents = torch.cat(rows)
        times = timestep.to(latents.device).expand(len(latents))
        return list(self.backbone.predict(latents, times, torch.cat(prompts), condition).chunk(len(rows)))

    @contextmanager
    def _checked(self, flow: AbstractContextManager[None]) -> Iterator[None]:
        with flow:
            yield
        self.tap.check_heard(self.sites)
