"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.core.branches import Branches
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import combine
from kvlock.core.protocols import Backbone, Forwards, Sampler
from kvlock.core.schedule import control_at, plan_steps
from kvlock.core.trace import Trace
from kvlock.core.types import EditRequest, EditResult, StepRecord
from kvlock.core.variance import measure

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
    waits for the device until the last step. `make_forwards` may wrap the branches' forwards.
    Raises ValueError for an unsuitable request, NonFiniteError if the latents stop being finite.
    """
    clips = prepare_clips(backbone, requests)
    anchored = is_anchored(config, backbone)
    sampler = backbone.sampler(config.num_inference_steps, multistep=not (anchored or config.drop))
    branches = Branches(backbone, sampler, clips, config)
    forwards = make_forwards(branches)
    kept = clips.foreground if anchored else forwards.computed
    source_at, z = start(config, clips, sampler, branches)
    x0_hats, carried, trace = (), None, Trace(branches.background)
    for step in plan_steps(config, sampler.sigmas):
        k, sigmas = step.index, sampler.sigmas[: step.index + 1]
        sigma2 = measure(config.signal, x0_hats, clips.foreground, sigmas, backbone.patch_size)
        control = control_at(config, step, sigma2, clips.source[:, 0, 0, 0, 0])
        v = forwards.predict(step, z, source_at(k), control)
        guided = combine(config, step, v, control.guidance_scale, z, sampler, carried)
        carried = guided.carried
        watched = guided.prediction if config.signal.prediction == "guided" else v[0]
        x0_hats = (*x0_hats, sampler.denoised(z, watched, k))[-config.window_steps :]
        z = sampler.step(z, guided.prediction, k)
        if kept is not None:
            z = torch.where(kept[:, None], z, source_at(k + 1))
        trace.add(k, sampler.sigmas[k], z, sigma2, control, guided.scale)
        if on_step:
            on_step(trace.latest())
    records = trace.records()
    return [EditResult(x.cpu(), r) for x, r in zip(backbone.decode_video(z), records)]


def is_anchored(config: KVLockConfig, backbone: Backbone) -> bool:
    """Whether the source is put back into the background after each step."""
    anchor = config.source.background_anchor
    return anchor == "latents" or (anchor == "auto" and backbone.needs_anchor)


def start(
    config: KVLockConfig, clips: Clips, sampler: Sampler, branches: Branches
) -> tuple[Callable[[int], Tensor], Tensor]:
    """The source's latents at the noise level of each step, and the edit's at the first.

    The source is noised with one noise, that the edit starts from; or inverted.
    """
    inversion, first = config.source.inversion, config.first_step
    if inversion:
        path = inversion.path(branches, clips, sampler, config.num_inference_steps)
        return path.__getitem__, inversion.start(path[first], clips)

    def source_at(step: int) -> Tensor:
        return sampler.add_noise(clips.source, clips.noise, step)

    if config.source.strength == 1:
        return source_at, clips.start
    return source_at, sampler.add_noise(clips.source, clips.start, first)
