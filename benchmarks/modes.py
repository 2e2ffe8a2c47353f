"""The modes that speed.py times: a method's config, how its forwards run, and how many edits."""

from dataclasses import dataclass, replace
from typing import Any

from kvlock.core.config import KVLockConfig, Source
from kvlock.methods.catalogue import FAST, PLAIN, RIGID, STEADY
from kvlock.methods.execution import Execution
from kvlock.methods.options import with_options
from kvlock.methods.parts import Drop

ONE_BY_ONE, ONE_BATCH = Execution("sequential"), Execution("batched")
UNTIED = Source(background_anchor="none")


@dataclass(frozen=True)
class Mode:
    """What is run; `variants` edits of one clip together."""

    config: KVLockConfig
    execution: Execution = ONE_BATCH
    variants: int = 1

    def steps(self, count: int) -> KVLockConfig:
        """The config in so many steps."""
        return replace(self.config, num_inference_steps=count)


def _drop(margin: int = 0, **options: Any) -> KVLockConfig:
    return replace(RIGID, source=UNTIED, lock=None, drop=Drop(drop_margin=margin, **options))


def fast(margin: int = 1) -> KVLockConfig:
    """The method `fast`, with so many tokens around the mask."""
    drop = Drop(source_refresh=0.25, background_context=0.7, drop_margin=margin)
    return replace(STEADY, guidance=FAST, drop=drop)


LOCK = replace(RIGID, source=UNTIED)
LOCK_ALWAYS = replace(LOCK, lock_steps=1.0)
DROP = _drop()
DROP_IN_LOCK = replace(LOCK, drop=Drop("locked", drop_margin=0))
MODES = {
    "plain": Mode(PLAIN, ONE_BY_ONE),
    "lean": Mode(LOCK),
    "lean, low memory": Mode(LOCK, ONE_BY_ONE),
    "lock in all steps": Mode(LOCK_ALWAYS),
    "lock in all steps, low memory": Mode(LOCK_ALWAYS, ONE_BY_ONE),
    "plain, one batch": Mode(PLAIN),
    "drop in the lock steps": Mode(DROP_IN_LOCK),
    "drop": Mode(DROP),
    "drop, refresh 2": Mode(_drop(source_refresh=2)),
    "drop, refresh 4": Mode(_drop(source_refresh=4)),
    "fast": Mode(fast(margin=0)),
    "drop, context 0.4, refresh 2": Mode(_drop(source_refresh=2, background_context=0.4)),
    "drop, 4 variants": Mode(DROP, variants=4),
    "drop, refresh 4, 4 variants": Mode(_drop(source_refresh=4), variants=4),
}
WITHOUT_FOREGROUND = [name for name, mode in MODES.items() if mode.config.drop is None]
FULL_SIZE = {
    "plain, row by row": MODES["plain"],
    "lean lock": Mode(LOCK),
    "lock, layer by layer": Mode(LOCK, ONE_BY_ONE),
    "drop": Mode(_drop(margin=1)),
    "fast": Mode(fast()),
    "fast, source on the host": Mode(fast(), Execution(source_store="host")),
}
"""Those that memory.py counts, at a known model's full size."""


def few_steps(config: KVLockConfig) -> KVLockConfig:
    """So few steps that every kind is made about twice, after a first one of any."""
    options: dict[str, Any] = {"num_inference_steps": 5}
    if isinstance(config.drop, Drop) and config.drop.refresh_steps(config) > 1:
        options["source_refresh"] = 2
    if config.guidance.guidance_interval != (0.0, 1.0):
        options["num_inference_steps"] = 12  # of which 3 are below the interval
    elif 0 < config.count(config.lock_steps) < config.num_inference_steps:
        options["lock_steps"] = 2
    few = with_options(config, options)
    assert isinstance(few, KVLockConfig)
    return few
