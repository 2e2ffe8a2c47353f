"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, EditResult, StepRecord
from kvlock.core.branches import Branches
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import combine
from kvlock.core.plugs import Forwards
from kvlock.core.schedule import control_at, plan_steps
from kvlock.core.trace import Trace
from kvlock.core.variance import Window, measure

OnStep = Callable[[list[StepRecord]], None]
MakeForwards = Callable[[Branches], Forwards]


@torch.no_grad()
def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: KVLockConfig,
    on_step: OnStep | None = None,
    make_forwards: MakeForwards = lambda branches: branches,
) -> list[EditResult]:
    """Edit clips of the same size together; a clip's result does not depend on the others.

    The clips' size must suit the model: sides that divide by VAE stride times patch, and
    stride*n+1 frames. `on_step` gets each clip's record of the step just made; without it nothing
    waits for the device before the last step. `make_forwards` may wrap the branches' forwards.
    Raises ValueError for an unsuitable request, NonFiniteError if the latents stop being finite.
    """
    z, traces = denoise(backbone, prepare_clips(backbone, requests), config, on_step, make_forwards)
    return [EditResult(x.cpu(), trace) for x, trace in zip(backbone.decode_video(z), traces)]


@torch.no_grad()
def denoise(
    backbone: Backbone,
    clips: Clips,
    config: KVLockConfig,
    on_step: OnStep | None = None,
    make_forwards: MakeForwards = lambda branches: branches,
) -> tuple[Tensor, list[tuple[StepRecord, ...]]]:
    """The same of clips that are prepared, not decoded: clean latents [B, C, F, H, W], and traces."""
    anchored = _is_anchored(config, backbone)
    multistep = not (anchored or config.drop)
    sampler = backbone.sampler(config.num_inference_steps, multistep, clips.latent_size)
    branches = Branches(backbone, sampler, clips, config)
    z, trace = _denoise(branches, make_forwards(branches), anchored, on_step)
    return z, trace.records()


def _denoise(
    branches: Branches, forwards: Forwards, anchored: bool, on_step: OnStep | None
) -> tuple[Tensor, Trace]:
    """The edit's clean latents, and what the steps did."""
    config, clips, sampler = branches.config, branches.clips, branches.sampler
    region = clips.foreground
    if config.signal.detection == "global":
        region = torch.ones_like(region)
    kept = clips.foreground if anchored else forwards.computed
    source_at, z = _start(branches)
    x0_hats, carried, trace = (), None, Trace(branches.background)
    for step in plan_steps(config, sampler.sigmas, sampler.switch):
        k = step.index
        window = Window(x0_hats, region, sampler.sigmas[k - len(x0_hats) : k + 1])
        sigma2 = measure(config.signal, window, branches.backbone.patch_size)
        control = control_at(config, step, sigma2, clips.source[:, 0, 0, 0, 0])
        v = forwards.predict(step, z, source_at(k), control)
        guided = combine(branches, step, v, control.guidance_scale, z, kept, carried)
        carried = guided.carried
        watched = guided.prediction if config.signal.prediction == "guided" else v[0]
        x0_hats = (*x0_hats, sampler.denoised(z, watched, k))[-config.window_steps :]
        z = sampler.step(z, guided.prediction, k)
        if kept is not None:
            z = torch.where(kept[:, None], z, source_at(k + 1))
        trace.add(k, sampler.sigmas[k], z, sigma2, control, guided.scale)
        if on_step:
            on_step(trace.latest())
    return z, trace


def _is_anchored(config: KVLockConfig, backbone: Backbone) -> bool:
    """Whether the source is put back into the background after each step."""
    anchor = config.source.background_anchor
    return anchor == "latents" or (anchor == "auto" and backbone.needs_anchor)


def _start(branches: Branches) -> tuple[Callable[[int], Tensor], Tensor]:
    """The source's latents at each step, noised with one noise or inverted; the edit's at the first."""
    config, clips, add_noise = branches.config, branches.clips, branches.sampler.add_noise
    if config.source.inversion:
        path = config.source.inversion.path(branches)
        return path.__getitem__, config.source.inversion.start(path[config.first_step], clips)
    z = clips.start
    if config.source.strength < 1:
        z = add_noise(clips.source, clips.start, config.first_step)
    return lambda step: add_noise(clips.source, clips.noise, step), z
