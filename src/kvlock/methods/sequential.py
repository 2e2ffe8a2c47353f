"""The branches one after the other: as the stock pipelines run them, and the lock in little memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kvlock.core.branches import Branches
from kvlock.core.fusion import fuse_, fusion_weight
from kvlock.core.protocols import AttentionSite
from kvlock.core.tap import Kind, Tap, video_tokens
from kvlock.core.types import Control, Prompt, Step, pick
from kvlock.methods.packed import PackedTap, by_branch, members, packed_branch


class Sequential:
    """`Forwards` that run one branch at a time.

    A locked step goes layer by layer where the backbone can pack its branches, and keeps one
    layer's keys and values; elsewhere it keeps those of all layers for the step.
    """

    computed = None

    def __init__(self, branches: Branches):
        lock = branches.config.lock
        inside = lock.foreground_ratio if lock else 0.0
        self._branches, self._inside = branches, inside
        self._layer_tap, self._step_tap = LayerHandOver(), StepHandOver(branches.background)
        self._layer_tap.background = branches.background

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """As `Branches.predict`."""
        branches = self._branches
        timestep, prompts = branches.sampler.timestep(step.index), branches.prompts(step)
        if not step.source:
            return [self._alone(latents, prompt, timestep) for prompt in prompts]
        background = branches.background
        weight = fusion_weight(control.fusion_ratio, background, self._inside)
        packs = hasattr(branches.backbone, "predict_packed")
        run = self._layer_by_layer if packs else self._source_first
        return run(latents, source, timestep, prompts, weight)

    def _alone(self, latents: Tensor, prompt: Prompt, timestep: Tensor) -> Tensor:
        condition = self._branches.clips.condition
        return self._branches.forward([latents], [prompt], timestep, [condition])[0]

    def _layer_by_layer(
        self,
        latents: Tensor,
        source: Tensor,
        timestep: Tensor,
        prompts: list[Prompt],
        weight: Tensor,
    ) -> list[Tensor]:
        clips, backbone = self._branches.clips, self._branches.backbone
        sites = backbone.attention_sites(timestep)
        tokens = torch.arange(weight.shape[1], device=latents.device)
        outputs, order = [], []
        for first, own in members(clips.firsts, clips.source_of):
            packed = [packed_branch(clips, source, clips.source_prompt, first, tokens)]
            packed += [
                packed_branch(clips, latents, p, clip, tokens) for clip in own for p in prompts
            ]
            weights = [weight[clip : clip + 1] for clip in own for _ in prompts]
            with self._layer_tap.in_turn(sites, weights):
                outputs += backbone.predict_packed(packed, timestep, self._layer_tap)[1:]  # type: ignore[attr-defined]
            order += own
        return by_branch(outputs, order, len(prompts))

    def _source_first(
        self,
        latents: Tensor,
        source: Tensor,
        timestep: Tensor,
        prompts: list[Prompt],
        weight: Tensor,
    ) -> list[Tensor]:
        branches, tap = self._branches, self._step_tap
        sites = branches.backbone.attention_sites(timestep)
        with tap.recording(sites):
            branches.source_alone(source, timestep)
        source_of = branches.clips.source_of
        try:
            with tap.fusing(sites, weight, source_of):
                return [self._alone(latents, prompt, timestep) for prompt in prompts]
        finally:
            tap.kept.clear()


class LayerHandOver(PackedTap):
    """The paper's fusion between the branches of a packed forward; one layer's keys and values live."""

    background: Tensor

    @contextmanager
    def in_turn(self, sites: Sequence[AttentionSite], weights: list[Tensor]) -> Iterator[None]:
        """For a source branch and then edits; weights: of each edit, [1, L, 1]."""
        self._weights = weights
        with self.attached(sites):
            yield

    def from_source(self, layer: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """Kept for the layer's other branches."""
        if not layer.site.control:
            setattr(layer, kind, video_tokens(layer.site, kind, tokens, self.background))
        return tokens

    def to_edit(self, layer: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """Fused, in place."""
        if not layer.site.control:
            video = video_tokens(layer.site, kind, tokens, self.background)
            fuse_(video, getattr(layer, kind), self._weights[self.branch - self.source_branches])
        return tokens

    def leave(self) -> None:
        """What the layer kept goes."""
        super().leave()
        for layer in self.layers:
            layer.key = layer.value = None


class StepHandOver(Tap):
    """The same between forwards: the source's keys and values of all layers live for a step."""

    def __init__(self, background: Tensor):
        super().__init__()
        self.background = background
        self.kept: dict[tuple[str, Kind], Tensor] = {}
        self._weight: Tensor | None = None
        self._source_of: list[int] = []

    @contextmanager
    def recording(self, sites: Sequence[AttentionSite]) -> Iterator[None]:
        """For the forward of the sources."""
        self._weight = None
        with self.attached([site for site in sites if not site.control]):
            yield

    @contextmanager
    def fusing(
        self, sites: Sequence[AttentionSite], weight: Tensor, source_of: list[int]
    ) -> Iterator[None]:
        """For the forwards of B edits; weight: [B, L, 1]."""
        self._weight, self._source_of = weight, source_of
        with self.attached([site for site in sites if not site.control]):
            yield

    def through(self, layer: Any, kind: Kind, tokens: Tensor) -> Tensor:
        """Kept, or fused in place."""
        video = video_tokens(layer.site, kind, tokens, self.background)
        if self._weight is None:
            self.kept[layer.site.name, kind] = video.clone()  # some models rotate keys in place
        else:
            fuse_(video, pick(self.kept[layer.site.name, kind], self._source_of), self._weight)
        return tokens
