"""The model's forwards in one step: source, conditional and unconditional, in one batch or row by row."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import token_foreground
from kvlock.core.protocols import Backbone, Sampler, TokenRow
from kvlock.core.schedule import drops, guides, may_lock, refreshes
from kvlock.core.tap import Tap
from kvlock.core.tokens import TokenSets, computed_latents, computed_tokens, token_sets
from kvlock.core.types import Control, EditRequest


@dataclass(frozen=True)
class Rows:
    """What every forward of an edit is told, for B clips.

    source_prompt: [B, L, D]. prompts: the conditional's and, where guidance is on, the unconditional's embeddings,
    [B, L, D] each. computed: bool [B, F, H, W], the latents whose tokens are computed where the background is dropped.
    """

    backbone: Backbone
    sampler: Sampler
    clips: Clips
    tap: Tap
    source_prompt: Tensor
    prompts: list[Tensor]
    computed: Tensor
    tokens: list[TokenSets]
    config: KVLockConfig

    def predict(self, step: int, latents: Tensor, source: Tensor, control: Control) -> tuple[list[Tensor], Control]:
        """A velocity per prompt that `step` needs, and the control as it is in force there.

        latents, source: [B, C, F, H, W] at the step's noise level. `rows="batched"` runs all rows in one forward and
        keeps no keys or values past a layer; otherwise they run one by one, with the lock layer by layer.
        """
        config, prompts = self.config, self.prompts
        if not guides(config, self.sampler.sigmas[step]):
            prompts = prompts[:1]
            control = replace(control, guidance_scale=torch.ones_like(control.guidance_scale))
        timestep = self.sampler.timestep(step)
        if drops(config, step):
            control = replace(control, fusion_ratio=torch.ones_like(control.guidance_scale))
            predictions = self._dropped(latents, source, timestep, prompts, first=refreshes(config, step))
            # What is dropped is on its way to the source, by the straight line that a perfect prediction would take.
            known = (latents - self.clips.source) / self.sampler.sigmas[step]
            return [torch.where(self.computed[:, None], p, known) for p in predictions], control
        if may_lock(config, step):
            run = self._locked if config.rows == "batched" else self._layer_by_layer
            return run(latents, source, timestep, prompts, control.fusion_ratio), control
        if config.rows == "batched":
            conditions = [self.clips.condition] * len(prompts)
            return self._forward([latents] * len(prompts), prompts, timestep, conditions), control
        return [self._forward([latents], [p], timestep, [self.clips.condition])[0] for p in prompts], control

    def source_alone(self, source: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for the source with its own prompt, without guidance; one row a source."""
        firsts = self.clips.firsts
        conditions = [_chosen(self.clips.condition, firsts)]
        alone = self._forward([_chosen(source, firsts)], [self._source_prompts], timestep, conditions)[0]
        return _chosen(alone, self.clips.source_of)

    def _locked(
        self, latents: Tensor, source: Tensor, timestep: Tensor, prompts: list[Tensor], fusion_ratio: Tensor
    ) -> list[Tensor]:
        """The keys and values of `source` fused in with `fusion_ratio` [B] or [B, L]; one source row a source."""
        firsts, condition = self.clips.firsts, self.clips.condition
        rows, texts = [_chosen(source, firsts)] + [latents] * len(prompts), [self._source_prompts, *prompts]
        conditions = [_chosen(condition, firsts)] + [condition] * len(prompts)
        with self.tap.handing_over(fusion_ratio):
            return self._forward(rows, texts, timestep, conditions)[1:]

    def _layer_by_layer(
        self, latents: Tensor, source: Tensor, timestep: Tensor, prompts: list[Tensor], fusion_ratio: Tensor
    ) -> list[Tensor]:
        """The same, one source and one row at a time."""
        everything, order = [], []
        tokens = torch.arange(self.tap.background.shape[1], device=latents.device)
        for clip, members in self._members():
            rows = [self._row(source, self.source_prompt, clip, tokens)]
            rows += [self._row(latents, prompt, b, tokens) for b in members for prompt in prompts]
            with self.tap.layer_by_layer(fusion_ratio, [b for b in members for _ in prompts]):
                everything += self.backbone.predict_packed(rows, timestep, self.tap)[1:]
            order += members
        return _by_branch(everything, order, len(prompts))

    def _dropped(
        self, latents: Tensor, source: Tensor, timestep: Tensor, prompts: list[Tensor], first: bool
    ) -> list[Tensor]:
        """The computed tokens alone, the rest zero: in attention the source stands in for it.

        first: run the source; otherwise what is held of an earlier step is used again.
        """
        everything, order = [], []
        for place, ((clip, members), sets) in enumerate(zip(self._members(), self.tokens)):
            rows = [self._row(source, self.source_prompt, clip, sets.source)] * first
            rows += [self._row(latents, prompt, b, sets.edit) for b in members for prompt in prompts]
            keep = self.config.refresh_steps > 1
            with self.tap.extending(sets.context, len(sets.edit), place, first, keep):
                predictions = self.backbone.predict_packed(rows, timestep, self.tap)
            everything += predictions[first:]
            order += members
        return _by_branch(everything, order, len(prompts))

    @property
    def _source_prompts(self) -> Tensor:
        return _chosen(self.source_prompt, self.clips.firsts)

    def _members(self) -> list[tuple[int, list[int]]]:
        """Of each source one clip, and all clips that share it."""
        source_of = self.clips.source_of
        return [
            (clip, [b for b, its_source in enumerate(source_of) if its_source == place])
            for place, clip in enumerate(self.clips.firsts)
        ]

    def _row(self, latents: Tensor, prompt: Tensor, clip: int, tokens: Tensor) -> TokenRow:
        one, condition = slice(clip, clip + 1), self.clips.condition
        return TokenRow(latents[one], prompt[one], None if condition is None else condition[one], tokens)

    def _forward(
        self, rows: list[Tensor], prompts: list[Tensor], timestep: Tensor, conditions: list[Any]
    ) -> list[Tensor]:
        latents = torch.cat(rows)
        condition = None if self.clips.condition is None else torch.cat(conditions)
        times = timestep.to(latents.device, non_blocking=True).expand(len(latents))
        return list(self.backbone.predict(latents, times, torch.cat(prompts), condition).split([len(r) for r in rows]))


def prepare_rows(
    backbone: Backbone, sampler: Sampler, requests: list[EditRequest], clips: Clips, config: KVLockConfig
) -> Rows:
    """Encode the prompts and choose the tokens."""
    prompts = [backbone.encode_prompt([r.prompt for r in requests])]
    if config.guidance_scale > 1:
        prompts.append(backbone.encode_prompt([r.negative_prompt for r in requests]))
    background = ~token_foreground(clips.foreground, backbone.patch_size)
    source_of = torch.tensor(clips.source_of, device=background.device)
    computed = computed_tokens(clips.foreground, backbone.patch_size, config.drop_margin)
    return Rows(
        backbone,
        sampler,
        clips,
        Tap(background, config.foreground_ratio, source_of, host=config.source_store == "host"),
        backbone.encode_prompt([r.source_prompt for r in requests]),
        prompts,
        computed_latents(computed, backbone.patch_size),
        [token_sets(computed[b], config.background_context) for b in clips.firsts],
        config,
    )


def _chosen(batch: Any, clips: list[int]) -> Any:
    """These clips of a batch; indexing with a list would make the host wait for the device."""
    return None if batch is None else torch.cat([batch[clip : clip + 1] for clip in clips])


def _by_branch(predictions: list[Tensor], order: list[int], branches: int) -> list[Tensor]:
    """From one clip after the other, in `order` and with all its branches, to a batch [B, C, F, H, W] a branch."""
    places = [order.index(clip) for clip in range(len(order))]
    return [torch.cat([predictions[place * branches + branch] for place in places]) for branch in range(branches)]
