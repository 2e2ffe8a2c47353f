"""One verb for every method: the config says which."""

from collections.abc import Callable

import torch

from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, EditResult
from kvlock.core import edit as kv_lock
from kvlock.core.branches import Branches
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import OnStep
from kvlock.core.plugs import Forwards
from kvlock.methods import flowedit
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig

DEFAULT = Execution()


def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: MethodConfig,
    execution: Execution = DEFAULT,
    on_step: OnStep | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together; as `kvlock.core.edit.edit_clips` for every method."""
    check_predictions(config, backbone.flow_matching)
    with torch.no_grad():
        clips = prepare_clips(backbone, requests)
    return edit_prepared(backbone, clips, config, execution, on_step)


def edit_prepared(
    backbone: Backbone,
    clips: Clips,
    config: MethodConfig,
    execution: Execution = DEFAULT,
    on_step: OnStep | None = None,
) -> list[EditResult]:
    """The same for clips that are prepared."""
    check_predictions(config, backbone.flow_matching)
    if isinstance(config, KVLockConfig):
        make_forwards = forwards_of(config, execution)
        return kv_lock.edit_prepared(backbone, clips, config, on_step, make_forwards)
    return flowedit.edit_prepared(backbone, clips, config, on_step)


def check_predictions(config: MethodConfig, flow_matching: bool) -> None:
    """Raise ValueError where a method walks by velocities and the model predicts none."""
    if flow_matching:
        return
    if not isinstance(config, KVLockConfig):
        needs = "FlowEdit"
    elif config.source.inversion:
        needs = "the inversion"
    elif config.guidance.zero_init_steps:
        needs = f"zero_init_steps={config.guidance.zero_init_steps}"
    else:
        return
    raise ValueError(
        f"{needs} goes by velocities of flow matching, and this model family predicts v on a "
        "diffusion schedule; take a method that does not, such as kv-lock or constant"
    )


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
