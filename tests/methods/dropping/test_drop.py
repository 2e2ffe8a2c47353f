"""What a drop goes with, and the plan that it makes."""

import dataclasses

import pytest
import torch

from kvlock.core.config import KVLockConfig, Lock, Signal
from kvlock.core.schedule import plan_steps
from kvlock.methods.parts import Calibration, Drop, Inject

LEVELS = torch.linspace(1, 0, 11).tolist()
LOCKED = Drop("locked")


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (dict(drop=Drop()), "drop_steps is 'all', so no step is left to lock; expected lock=None"),
        (dict(drop=LOCKED, lock=None), "drop_steps is 'locked', but lock is None; expected a lock"),
        (dict(drop=LOCKED, lock=Lock(0.5)), "fusion_ratio is 0.5; .* expected 1 or 'variance'"),
        (
            dict(drop=LOCKED, lock=Lock(1.0, Inject(foreground_ratio=0.1))),
            "expected 1 or 'variance', and foreground_ratio=0",
        ),
        (
            dict(drop=LOCKED, signal=Signal(calibration=Calibration(lock_width=2.0))),
            "lock_width is 2.0; expected 0 with drop",
        ),
        (
            dict(drop=Drop(), lock=None, signal=Signal(calibration=Calibration(lock_width=2.0))),
            "lock_width is 2.0; expected 0 with drop",
        ),
    ],
    ids=range(6),
)
def test_what_does_not_go_with_a_drop_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        KVLockConfig(**fields)


@pytest.mark.parametrize("ratio", ["variance", 1, 1.0])
def test_what_goes_with_a_drop(ratio):
    config = KVLockConfig(10, drop=LOCKED, lock=Lock(ratio))
    assert [step.dropped for step in plan_steps(config, LEVELS)] == [False] * 6 + [True] * 4


@pytest.mark.parametrize("refresh, every", [(1, 1), (2, 2), (0.25, 2), (0.3, 3), (20, 20)])
def test_the_source_is_run_once_in_so_many_of_the_steps_that_drop(refresh, every):
    config = KVLockConfig(10, lock_steps=5, drop=Drop("locked", source_refresh=refresh))
    plan = plan_steps(config, LEVELS)
    assert [step.source for step in plan[5:]] == [k % every == 0 for k in range(5)]
    assert not any(step.source or step.dropped for step in plan[:5])
    whole = dataclasses.replace(config, lock=None, drop=Drop("all", source_refresh=refresh))
    plan = plan_steps(whole, LEVELS)
    assert [step.source for step in plan] == [k % every == 0 for k in range(10)]
    assert all(step.dropped for step in plan)


def test_a_late_start_begins_with_the_source():
    source = dataclasses.replace(KVLockConfig().source, strength=0.5)
    config = KVLockConfig(10, lock=None, source=source, drop=Drop(source_refresh=3))
    plan = plan_steps(config, LEVELS)
    assert [step.index for step in plan if step.source] == [5, 8]


def test_a_lock_that_ends_drops_only_where_it_holds():
    lock = Lock(1.0, Inject(0.3))
    config = KVLockConfig(10, lock_steps=1.0, lock=lock, drop=LOCKED)
    assert [step.dropped for step in plan_steps(config, LEVELS)] == [True] * 3 + [False] * 7
