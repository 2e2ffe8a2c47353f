"""Toy backbones, requests and configs, and ways to look into an edit: for all tests of edits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import Control, EditRequest, EditResult, Step
from kvlock.core.branches import Branches
from kvlock.core.clips import prepare_clips
from kvlock.core.plugs import Forwards
from kvlock.methods.catalogue import METHODS, method_config
from kvlock.methods.edit import edit_clips, forwards_of
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig, flat, with_options
from kvlock.methods.parts import Drop
from support import reference, tiny

STEPS = 6
OMEGA = 5.0  # the default guidance scale
TEXT_LENGTH = 16
BACKBONES = {"wan": (WanBackbone, tiny.wan_pipe), "wan-vace": (WanVACEBackbone, tiny.vace_pipe)}
BATCHED, SEQUENTIAL = Execution("batched"), Execution("sequential")
EXECUTIONS = (BATCHED, SEQUENTIAL)
TOY = dict(num_inference_steps=STEPS, lock_steps=4, threshold=0.02)


def make_backbone(name: str) -> Any:
    """A tiny random one; the same weights each time."""
    cls, pipe = BACKBONES[name]
    return cls(pipe(), TEXT_LENGTH)


class Unpacked:
    """A backbone of a family that has no packed forwards; all else is the other's."""

    def __init__(self, backbone: Any):
        self.packing = backbone

    def __getattr__(self, name: str) -> Any:
        if name == "predict_packed":
            raise AttributeError(name)
        return getattr(self.packing, name)


def make_request(
    seed: int = 0, prompt: str = "a red cat", source_prompt: str = "a dog", everywhere: bool = False
) -> EditRequest:
    """A small clip: of 3 x 2 x 2 tokens about half are foreground."""
    generator = torch.Generator().manual_seed(100 + seed)
    video = torch.randint(0, 256, (9, 32, 32, 3), generator=generator, dtype=torch.uint8)
    mask = torch.full((9, 32, 32), everywhere)
    mask[:, 8:20, 2 + 4 * seed : 14 + 4 * seed] = True
    return EditRequest(video, mask, prompt, source_prompt, seed=seed)


def wide_request(seed: int = 0) -> EditRequest:
    """Of six columns of tokens two are foreground, one more is its margin, three are background."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (9, 32, 96, 3), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(9, 32, 96, dtype=torch.bool)
    mask[:, 8:20, 4 + 64 * seed : 28 + 64 * seed] = True
    return EditRequest(video, mask, "a red cat", "a dog", seed=seed)


def config(method: str = "kv-lock", **options: Any) -> Any:
    """The method at toy size, with these options of parts that it has."""
    assert set(options) <= set(flat(METHODS[method])), f"{method} lacks one of {set(options)}"
    return with_options(METHODS[method], TOY | options)


def dropped(settings: Any, **options: Any) -> Any:
    """The same with steps that drop the background."""
    return replace(settings, drop=Drop(**options))


def short(method: str, **options: Any) -> Any:
    """The method in a few steps and otherwise as it is."""
    return method_config(method, {}, dict(num_inference_steps=STEPS) | options)


def latents_of(
    backbone: Any,
    requests: list[EditRequest],
    config: MethodConfig,
    execution: Execution = BATCHED,
) -> Tensor:
    """The final latents, before the decoder rounds them to bytes."""
    return watched(backbone, requests, config, execution)[1]


def watched(
    backbone: Any,
    requests: list[EditRequest],
    config: MethodConfig,
    execution: Execution = BATCHED,
) -> tuple[list[EditResult], Tensor]:
    """The results and the final latents."""
    kept: list[Tensor] = []
    decode = backbone.decode_video
    backbone.decode_video = lambda latents: kept.append(latents) or decode(latents)
    try:
        return edit_clips(backbone, requests, config, execution), kept[0]
    finally:
        del backbone.decode_video


def counted(backbone: Any) -> list[int]:
    """The branches of each of the backbone's forwards from here on."""
    counts: list[int] = []

    def counting(forward: Callable) -> Callable:
        return lambda batch, *rest: counts.append(len(batch)) or forward(batch, *rest)

    for name in ("predict", "predict_packed"):
        if hasattr(backbone, name):
            setattr(backbone, name, counting(getattr(backbone, name)))
    return counts


class Watching:
    """`Forwards` that report the clean latents that each branch of each step predicts."""

    def __init__(self, branches: Branches, others: Forwards, report: Callable[[Step, list], None]):
        self._sampler, self._others, self._report = branches.sampler, others, report
        self.computed = others.computed

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]:
        """As the others'."""
        predictions = self._others.predict(step, latents, source, control)
        denoised = [self._sampler.denoised(latents, p, step.index) for p in predictions]
        self._report(step, denoised)
        return predictions


def watching(config: Any, execution: Execution, report: Callable) -> Callable[[Branches], Forwards]:
    """What `make_forwards` of the core's `edit_clips` takes."""
    make = forwards_of(config, execution)
    return lambda branches: Watching(branches, make(branches), report)


def branches_of(backbone: Any, requests: list[EditRequest], config: Any) -> Branches:
    """What the forwards of an edit are made from, without editing."""
    with torch.no_grad():
        clips = prepare_clips(backbone, requests)
    sampler = backbone.sampler(config.num_inference_steps, multistep=False)
    return Branches(backbone, sampler, clips, config)


class World:
    """What a paper's loop needs of a backbone, for one clip."""

    def __init__(self, backbone: Any, request: EditRequest, steps: int = STEPS):
        self.backbone: Backbone = backbone
        self.sampler = backbone.sampler(steps, multistep=False)
        with torch.no_grad():
            self.clean = backbone.encode_video(request.video[None])
            self.condition = backbone.condition([request])
        self.noise = self.draw(torch.Generator().manual_seed(request.seed))
        self.inside = reference.latent_mask(request.mask, backbone.vae_stride).float()

    def draw(self, generator: torch.Generator) -> Tensor:
        """Noise in the shape of the clip's latents."""
        return torch.randn(self.clean.shape[1:], generator=generator)[None]

    @torch.no_grad()
    def velocity(self, latents: Tensor, step: int, prompt: str) -> Tensor:
        """One branch alone."""
        encoded, timestep = self.backbone.encode_prompt([prompt]), self.sampler.timestep(step)
        return self.backbone.predict(latents, timestep[None], encoded, self.condition)

    def guided(self, latents: Tensor, step: int, prompt: str, omega: float) -> Tensor:
        """Classifier-free guidance against the empty prompt."""
        cond, uncond = self.velocity(latents, step, prompt), self.velocity(latents, step, "")
        return uncond + omega * (cond - uncond)
