"""A seeded part of `python -m benchmarks.faults`: every class of broken input, kill and fault."""

import pytest
from benchmarks.faults.classes import CLASSES, attempt, ready_world

SEED, EVERY = 20260, 40  # one case in so many
LEAST = 2


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The whole files that all cases share, and their folder."""
    root = tmp_path_factory.mktemp("faults")
    return ready_world(root), root


@pytest.mark.parametrize("kind", CLASSES)
def test_each_case_ends_right_or_in_one_sentence(world, kind):
    count = max(LEAST, CLASSES[kind][1] // EVERY)
    verdicts = [attempt(*world, SEED, kind, number) for number in range(count)]
    assert not [(v.number, v.what, v.flaw, v.command) for v in verdicts if v.flaw]
