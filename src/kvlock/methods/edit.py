"""One verb for every method: the config says which."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, EditResult, StepRecord
from kvlock.core import edit as kv_lock
from kvlock.core.branches import Branches
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import OnStep
from kvlock.core.plugs import Forwards
from kvlock.methods import flowedit
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig
from kvlock.methods.refusals import check_runs

DEFAULT = Execution()
Traces = list[tuple[StepRecord, ...]]  # one a clip


def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    execution: Execution = DEFAULT,
    on_step: OnStep | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together; as `kvlock.core.edit.edit_clips` for every method."""
    check_runs(config, backbone)
    with torch.no_grad():
        clips = prepare_clips(backbone, requests)
    return decode(backbone, *denoise(backbone, clips, config, execution, on_step))


def denoise(
    backbone: Backbone,
    clips: Clips,
    config: MethodConfig,
    execution: Execution = DEFAULT,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Traces]:
    """The clean latents [B, C, F, H, W] of clips that are prepared, and their traces."""
    check_runs(config, backbone)
    if isinstance(config, KVLockConfig):
        make_forwards = forwards_of(config, execution)
        return kv_lock.denoise(backbone, clips, config, on_step, make_forwards)
    return flowedit.denoise(backbone, clips, config, on_step)


@torch.no_grad()
def decode(backbone: Backbone, latents: Tensor, traces: Traces) -> list[EditResult]:
    """Results from what `denoise` gives."""
    videos = backbone.decode_video(latents)
    return [EditResult(video.cpu(), trace) for video, trace in zip(videos, traces)]


def forwards_of(
    config: KVLockConfig, execution: Execution, foreground: torch.Tensor | None = None
) -> Callable[[Branches], Forwards]:
    """What runs a step's forwards; foreground: as in `Dropped`."""
    from kvlock.methods.dropping.forwards import Dropped
    from kvlock.methods.sequential import Sequential

    def make(branches: Branches) -> Forwards:
        sequential = execution.branches == "sequential"
        forwards = Sequential(branches) if sequential else branches
        if config.drop:
            host = execution.source_store == "host"
            return Dropped(branches, forwards, config.drop, host, foreground)  # type: ignore[arg-type]
        return forwards

    return make
