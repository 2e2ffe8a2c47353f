"""kvlock: edit one thing in a video and keep the rest (KV-Lock, arXiv 2603.09657)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlock.backbones.loading import backbone_of, load_backbone
    from kvlock.contract.types import EditRequest, EditResult, StepRecord
    from kvlock.core.config import KVLockConfig
    from kvlock.core.trace import NonFiniteError
    from kvlock.editing.clips import default_config, edit, edit_variants
    from kvlock.editing.edit import plan, run
    from kvlock.editing.job import EditJob
    from kvlock.editing.outputs import write
    from kvlock.methods.catalogue import METHODS
    from kvlock.methods.edit import edit_clips
    from kvlock.methods.execution import Execution

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "EditJob",
    "EditRequest",
    "EditResult",
    "Execution",
    "KVLockConfig",
    "NonFiniteError",
    "StepRecord",
    "backbone_of",
    "default_config",
    "edit",
    "edit_clips",
    "edit_variants",
    "load_backbone",
    "plan",
    "run",
    "write",
]
_HOMES = {
    "backbones.loading": ("backbone_of", "load_backbone"),
    "core.config": ("KVLockConfig",),
    "core.trace": ("NonFiniteError",),
    "contract.types": ("EditRequest", "EditResult", "StepRecord"),
    "editing.clips": ("default_config", "edit", "edit_variants"),
    "editing.edit": ("plan", "run"),
    "editing.job": ("EditJob",),
    "editing.outputs": ("write",),
    "methods.catalogue": ("METHODS",),
    "methods.edit": ("edit_clips",),
    "methods.execution": ("Execution",),
}


def __getattr__(name: str):
    """Public names are imported when first used: `import kvlock` loads neither torch nor diffusers."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"kvlock.{home}"), name)
    raise AttributeError(f"module 'kvlock' has no attribute {name!r}")
