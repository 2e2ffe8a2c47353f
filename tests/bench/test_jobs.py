"""A run's jobs: their order, their names, and the fields that they take."""

import re
from dataclasses import replace

import pytest

from kvlock.bench.jobs import BATCH, CEILING, Job, plan_jobs
from kvlock.bench.suite import shapes_suite
from kvlock.core.config import KVLockConfig, Signal
from kvlock.methods.catalogue import METHODS

JOB = Job("scene-00001", "shapes", "plain", 0, KVLockConfig())


def test_jobs_in_batches_with_every_method_on_the_same_clips_first():
    suite = shapes_suite("some", range(BATCH + 2))
    batches = plan_jobs(
        suite, "shapes", (CEILING, "plain", "plain+composite", "flowedit"), range(2), {"window": 4}
    )
    assert [len(b) for b in batches] == [BATCH] * 6 + [2] * 6
    assert [b[0].method for b in batches[:6]] == [CEILING, "plain", "flowedit"] * 2
    assert batches[1][0].config.signal.window == 4 and batches[0][0].config is None
    assert len({j.id for b in batches for j in b}) == (BATCH + 2) * 3 * 2


def test_a_setting_that_makes_a_method_is_not_overridden():
    suite = shapes_suite("one", range(1))
    [[job], [other]] = plan_jobs(
        suite, "shapes", ("sdedit", "kv-lock"), range(1), {"strength": 0.5}
    )
    assert job.config.source.strength == METHODS["sdedit"].source.strength == 0.8
    assert other.config.source.strength == 0.5


def test_an_option_goes_to_the_methods_in_which_it_does_something():
    """Nothing in plain sampling hangs on the threshold."""
    suite = shapes_suite("one", range(1))
    [[plain], [locked]] = plan_jobs(
        suite, "shapes", ("plain", "kv-lock"), range(1), {"threshold": 0.5}
    )
    assert locked.config.signal.threshold == 0.5 and plain.config.signal.threshold != 0.5
    with pytest.raises(ValueError, match="threshold is set by each of plain itself, or is not"):
        plan_jobs(suite, "shapes", ("plain",), range(1), {"threshold": 0.5})


def test_job_ids_tell_configs_apart_and_stay():
    assert JOB.id == replace(JOB).id == "scene-00001.shapes.plain.s0." + JOB.id[-8:]
    others = [
        replace(JOB, config=KVLockConfig(signal=Signal(window=4))),
        replace(JOB, seed=1),
        replace(JOB, model="/x/shapes"),
    ]
    others.append(replace(JOB, inputs="other weights"))
    assert len({JOB.id, *(j.id for j in others)}) == 5
    assert re.fullmatch(r"[A-Za-z0-9._-]+", replace(JOB, model="Wan-AI/Wan 2.1 ü").id)
