"""kvlock: edit one thing in a video and keep the rest (KV-Lock, arXiv 2603.09657)."""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "EditRequest": "kvlock.core.types",
    "EditResult": "kvlock.core.types",
    "StepRecord": "kvlock.core.types",
    "KVLockConfig": "kvlock.core.config",
    "METHODS": "kvlock.methods.table",
    "NonFiniteError": "kvlock.core.trace",
    "edit_clips": "kvlock.editing",
    "edit": "kvlock.editing",
    "edit_variants": "kvlock.editing",
    "default_config": "kvlock.editing",
    "load_backbone": "kvlock.backbones.loading",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    """Public names are imported when they are first used: `import kvlock` loads neither torch nor diffusers."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kvlock' has no attribute {name!r}")
