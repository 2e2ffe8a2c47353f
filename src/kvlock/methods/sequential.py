"""The branches one after the other: as the stock pipelines run them, and the lock in little memory."""

import torch
from torch import Tensor

from kvlock.contract.tap import Kind, Layer, Tap
from kvlock.contract.types import Control, Prompt, Step, pick
from kvlock.core.branches import Branches
from kvlock.core.fusion import fuse_, fusion_weight
from kvlock.methods.inversion import source_alone
from kvlock.methods.packed import PackedTap, by_branch, members, packed_branch


class Sequential:
    """`Forwards` that run one branch at a time.

    A locked step goes layer by layer where the backbone can pack its branches, and keeps one
    layer's keys and values; elsewhere it keeps those of all layers for the step.
    """

    computed = None

    def __init__(self, branches: Branches):
        self._branches = branches
        self._layer_tap = LayerHandOver(branches.background)
        self._step_tap = StepHandOver(branches.background)

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """As `Branches.predict`."""
        branches = self._branches
        timestep, prompts = branches.sampler.timestep(step.index), branches.prompts(step)
        if not step.source:
            return [self._alone(latents, prompt, timestep) for prompt in prompts]
        background = branches.background
        weight = fusion_weight(control.fusion_ratio, background, branches.inside)
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
        tokens = torch.arange(weight.shape[1], device=latents.device)
        outputs, order = [], []
        for first, own in members(clips.firsts, clips.source_of):
            packed = [packed_branch(clips, source, clips.source_prompt, first, tokens)]
            packed += [
                packed_branch(clips, latents, p, clip, tokens) for clip in own for p in prompts
            ]
            weights = [weight[clip : clip + 1] for clip in own for _ in prompts]
            tap = self._layer_tap.weighted(weights)
            with backbone.tapped(tap, timestep, control=True):
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
        try:
            with branches.backbone.tapped(tap.recording(), timestep):
                source_alone(branches, source, timestep)
            fusing = tap.fusing(weight, branches.clips.source_of)
            with branches.backbone.tapped(fusing, timestep):
                return [self._alone(latents, prompt, timestep) for prompt in prompts]
        finally:
            tap.forget()


class LayerHandOver(PackedTap):
    """The paper's fusion between the branches of a packed forward; one layer's keys and values live."""

    def __init__(self, background: Tensor):
        super().__init__()
        self.background = background
        self._weights: list[Tensor] = []
        self._weight = background.new_zeros(1, 1, 1).float()

    def weighted(self, weights: list[Tensor]) -> "LayerHandOver":
        """Itself, for a source branch and then edits; weights: of each edit, [1, L, 1]."""
        self._weights = weights
        return self

    def enter(self, branch: int, rope: tuple[Tensor, Tensor]) -> None:
        """What follows belongs to this branch."""
        super().enter(branch, rope)
        if branch >= self.source_branches:
            self._weight = self._weights[branch - self.source_branches]

    def from_source(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Kept for the layer's other branches."""
        if not layer.control:
            setattr(layer, kind, layer.video(kind, tokens, self.background.shape[1]))
        return tokens

    def to_edit(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Fused, in place."""
        if not layer.control:
            video = layer.video(kind, tokens, self.background.shape[1])
            fuse_(video, getattr(layer, kind), self._weight)
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
        self._weight: Tensor | None = None
        self._source_of: list[int] = []

    def recording(self) -> "StepHandOver":
        """Itself, for the forward of the sources."""
        self._weight = None
        return self

    def fusing(self, weight: Tensor, source_of: list[int]) -> "StepHandOver":
        """Itself, for the forwards of B edits; weight: [B, L, 1]."""
        self._weight, self._source_of = weight, source_of
        return self

    def through(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Kept, or fused in place."""
        video = layer.video(kind, tokens, self.background.shape[1])
        if self._weight is None:
            setattr(layer, kind, video.clone())  # some models rotate keys in place
        else:
            fuse_(video, pick(getattr(layer, kind), self._source_of), self._weight)
        return tokens

    def forget(self) -> None:
        """What the layers kept goes."""
        for layer in self.wrapped.values():
            layer.key = layer.value = None
