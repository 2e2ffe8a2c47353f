"""A run.json that is none, field by field."""

import json

import pytest

from kvlock.editing.job import EditJob, job_to_dict
from kvlock.editing.outputs import read_run
from kvlock.methods.catalogue import METHODS
from kvlock.methods.execution import Execution


@pytest.fixture
def record():
    """A whole one, as JSON has it."""
    job = EditJob("a.mp4", "m.png", ("a cat",), "shapes")
    made = job_to_dict(job, METHODS["kv-lock"], Execution())
    return json.loads(json.dumps({"job": made, "inputs": {}, "versions": {"torch": "2"}}))


WRONG = ("x" * 300, -1, 1.5, True, None, [], [[]], {}, {"x": 1}, [None])


def _paths(record, before=()):
    for name, value in record.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from _paths(value, (*before, name))


def _refused(path, record):
    """None, or the sentence."""
    path.write_text(json.dumps(record))
    try:
        read_run(path, accept_changes=True)
    except OSError:  # the clip is not there, and was to be read: the record was taken
        return None
    except ValueError as error:
        return str(error)


def test_any_field_of_another_kind_or_missing_is_a_sentence_with_its_name(record, tmp_path):
    """Every field of the record, set to everything that JSON has, and left out."""
    path, refusals = tmp_path / "run.json", 0
    assert _refused(path, record) is None
    for names in _paths(record):
        *parents, last = names
        for wrong in (*WRONG, ...):
            changed = json.loads(json.dumps(record))
            inner = changed
            for name in parents:
                inner = inner[name]
            if wrong is ...:
                del inner[last]
            else:
                inner[last] = wrong
            said = _refused(path, changed)
            if said is not None:
                refusals += 1
                assert said.startswith(f"{path}: ") and "\n" not in said, (names, wrong, said)
                assert "expected" in said and len(said) < 1200, (names, wrong, said)
    assert refusals > 300


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"fps": "16"}, "job.fps is '16'; expected a number"),
        ({"prompts": "a cat"}, "job.prompts is 'a cat'; expected a list"),
        ({"prompts": [3]}, "job.prompts[0] is 3; expected text"),
        ({"size": [96]}, "job.size has 1 entries; expected 2"),
        ({"offload": "some"}, "job.offload is 'some'; expected one of none, model, group or null"),
        ({"colour": 1}, "job.colour is unknown; expected clip, mask"),
    ],
)
def test_the_field_is_named_with_what_was_found_and_expected(record, tmp_path, change, sentence):
    record["job"] |= change
    assert f": {sentence}" in str(_refused(tmp_path / "run.json", record))
