"""The one reader of JSON: what it takes, and the sentence for what it does not."""

import json
import os
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlock.contract.records import RecordError, read_json, typed


class Clip(TypedDict):
    id: str
    fps: float
    crop: tuple[int, int]
    tags: list[str]
    form: Literal["auto", "keep"]
    note: NotRequired[str | None]


GOOD: dict[str, Any] = {"id": "a", "fps": 16, "crop": [1, 2], "tags": ["x"], "form": "keep"}


def said(value, kind) -> str:
    with pytest.raises(RecordError) as error:
        typed(value, kind)
    return str(error.value)


def test_what_is_right_comes_back_with_tuples_and_with_fields_that_are_not_known():
    record = {"clips": [GOOD | {"besides": 1, "note": None}]}
    found = typed(record, dict[str, list[Clip]])["clips"][0]
    assert found == GOOD | {"crop": (1, 2), "besides": 1, "note": None}


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"id": 3}, "[1].id is 3; expected text"),
        ({"fps": True}, "[1].fps is True; expected a number"),
        ({"fps": "16"}, "[1].fps is '16'; expected a number"),
        ({"crop": [1, "2"]}, "[1].crop[1] is '2'; expected a whole number"),
        ({"crop": [1, 2.0]}, "[1].crop[1] is 2.0; expected a whole number"),
        ({"crop": [1]}, "[1].crop has 1 entries; expected 2"),
        ({"tags": {}}, "[1].tags is {}; expected a list"),
        ({"tags": "x"}, "[1].tags is 'x'; expected a list"),
        ({"form": "wide"}, "[1].form is 'wide'; expected one of auto, keep"),
        ({"note": []}, "[1].note is []; expected text or null"),
    ],
)
def test_the_field_what_is_there_and_what_was_expected_are_named(change, sentence):
    assert said([GOOD, GOOD | change], list[Clip]) == sentence


def test_what_is_missing_is_named():
    del (short := dict(GOOD))["fps"]
    assert said({"a": short}, dict[str, Clip]) == "a.fps is missing; expected a number"


def test_a_union_speaks_of_the_member_that_was_meant():
    assert said(GOOD | {"id": 1}, str | Clip | None) == "id is 1; expected text"
    assert said(GOOD | {"id": 1}, str | Clip | None) == "id is 1; expected text"
    assert said([[1]], list[list[str]] | None) == "[0][0] is 1; expected text"
    assert said(1, list[int] | None) == "the whole is 1; expected a list or null"


def test_a_long_value_is_cut():
    assert len(said("x" * 10_000, int)) < 120


BAD = {
    "no JSON": b"{",
    "cut": json.dumps(GOOD).encode()[:-5],
    "not text": b"\xff\xfe\x00",
    "too deep": b"[" * 100_000,
    "a long number": b"1" * 10_000,
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RecordError) as error:
        read_json(tmp_path / "a.json", dict, "make it again")
    expected = f"its {len(content)} bytes are no JSON, or not all of it; make it again"
    assert str(error.value) == f"{tmp_path / 'a.json'}: {expected}"


def test_files_that_are_not_there_and_empty_ones_and_pipes_are_named(tmp_path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("gone", "there is no such file"),
        ("empty", "the file is empty"),
        ("pipe", "it is no file of data"),
    ):
        with pytest.raises(RecordError, match=f"{name}: {reason}; make it again$"):
            read_json(tmp_path / name, dict, "make it again")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS: list[Any] = [int, str, list[int], tuple[int, str], dict[str, float], Clip, str | list[bool]]


@given(JSON, st.sampled_from(KINDS))
def test_any_json_is_taken_as_it_is_or_refused_in_a_sentence(value, kind):
    try:
        found = typed(value, kind)
    except RecordError as error:
        assert "expected " in str(error)
    else:
        assert (list(found) if isinstance(found, tuple) else found) == value
