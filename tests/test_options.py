"""Every option of every part holds its range, its names and its kind."""

import json
import re
from dataclasses import dataclass, fields
from typing import Literal, get_args, get_origin

import pytest

from kvlock.contract.options import (
    COUNT,
    FINITE,
    FRACTION,
    FROM_0,
    FROM_1,
    POSITIVE,
    SHARE,
    STEPS,
    Part,
    Steps,
    option,
)
from kvlock.core.config import AdaptiveGuidance, Guidance, KVLockConfig, Lock, Signal, Source
from kvlock.methods.execution import Execution
from kvlock.methods.options import PARTS, FlowEditConfig
from kvlock.methods.parts import Calibration, Drop, Inject

RECORDS = (*PARTS.values(), KVLockConfig, FlowEditConfig, Execution)
OPTIONS = [(record, f) for record in RECORDS for f in fields(record) if f.name not in PARTS]
NAN = float("nan")
ENDLESS = (NAN, float("inf"), -float("inf"), 10**400)
VALUES = {  # of each range: what is in it, what is not
    SHARE: ((0, 0.5, 1), (-0.1, 1.1, *ENDLESS)),
    POSITIVE: ((0.001, 3), (0, -1, 1e-320, *ENDLESS)),
    FROM_0: ((0, 7), (-1, -0.5, *ENDLESS)),
    FROM_1: ((1, 7), (0, -1, *ENDLESS)),
    COUNT: ((1, 7, 1000), (0, -1, 1001, *ENDLESS)),
    FRACTION: ((0.01, 1), (0, 1.01, -0.5, *ENDLESS)),
    FINITE: ((-0.5, 0, 3), ENDLESS),
    STEPS: ((0, 7, 0.0, 0.5, 1.0), (-1, -0.5, 1.5, *ENDLESS)),
}
OWN = {  # options with a range of their own
    (Lock, "fusion_ratio"): (("variance", 0.1, 1), (0, 0.0, 1.5, -0.5, *ENDLESS, "often", None)),
    (Signal, "window"): ((2, 50, 0.5), (1, 0, -3, 0.0, 1.0, 1.5, *ENDLESS)),
    (Guidance, "guidance_scale_2"): ((None, 1, 7.5), (0, -1, *ENDLESS)),
    (Guidance, "guidance_interval"): (
        ((0.0, 1.0), (0.5, 0.5), [0.2, 0.7]),
        ((0.5, 0.2), (-0.1, 0.5), (0.5, 1.1), (0.5,), (0.1, 0.2, 0.3), (0.0, NAN)),
    ),
    (Calibration, "usual"): (
        ((), ((0.5, 0.1),), [[0.0, 1.0], [1.0, 0.5]]),
        (
            ((0.5, 0.0),),
            ((1.5, 0.1),),
            ((-0.1, 0.1),),
            ((0.5, -1.0),),
            ((0.5,),),
            ((0.1,) * 3,),
            ((0.5, NAN),),
            ((0.5, float("inf")),),
        ),
    ),
    (Drop, "source_refresh"): ((1, 4, 0.25), (0, -1, 0.0, 1.0, 1.5, *ENDLESS)),
}


def _ids(cases):
    return [f"{record.__name__}.{f.name}" for record, f, *_ in cases]


def _made(record, name, value):
    """With the rest such that the value alone decides."""
    rest = {}
    if name == "lock_guidance":
        rest = dict(adaptive=None)
    elif name == "guidance_boost":
        rest = dict(guidance_floor=0.0)
    elif name == "guidance_floor":
        rest = dict(guidance_boost=100.0)
    return record(**{name: value}, **rest)


RANGED = [
    (r, f, *VALUES[f.metadata["allowed"]])
    for r, f in OPTIONS
    if f.metadata.get("allowed") in VALUES
]
RANGED += [(r, f, *OWN[r, f.name]) for r, f in OPTIONS if (r, f.name) in OWN]
SWITCHES = [(r, f) for r, f in OPTIONS if f.type is bool]
NAMED = [(r, f) for r, f in OPTIONS if get_origin(f.type) is Literal]


def test_no_option_is_left_out_here():
    covered = {(r, f.name) for r, f, *_ in (*RANGED, *NAMED, *SWITCHES)}
    assert covered == {(r, f.name) for r, f in OPTIONS}
    assert {r for r, _ in OWN} <= set(RECORDS) and len(covered) > 30


@pytest.mark.parametrize("record, f, good, bad", RANGED, ids=_ids(RANGED))
def test_values_out_of_range_are_named_with_what_was_expected(record, f, good, bad):
    for value in good:
        made = getattr(_made(record, f.name, value), f.name)
        assert json.dumps(made) == json.dumps(value)
    for value in bad:
        with pytest.raises(ValueError, match=f"^{f.name} is .*; expected .+"):
            _made(record, f.name, value)
    wrong = ("loud", None, [1]) if f.type in (int, float, Steps) else ()
    for value in (*wrong, 2.5) if f.type is int else wrong:
        with pytest.raises(ValueError, match=f"^{f.name} is {re.escape(repr(value))}; expected"):
            _made(record, f.name, value)


@pytest.mark.parametrize("record, f", NAMED, ids=_ids(NAMED))
def test_names_are_one_of_those_that_there_are(record, f):
    for name in get_args(f.type):
        if record is not KVLockConfig:
            assert getattr(record(**{f.name: name}), f.name) == name
    for name in ("both", "", None, 1):
        with pytest.raises(ValueError, match=f"^{f.name} is {name!r}; expected one of "):
            record(**{f.name: name})


@pytest.mark.parametrize("record, f", SWITCHES, ids=_ids(SWITCHES))
def test_switches_are_true_or_false(record, f):
    for value in (True, False):
        assert getattr(record(**{f.name: value}), f.name) is value
    for value in ("no", None, 0):
        with pytest.raises(ValueError, match=f"^{f.name} is {value!r}; expected True or False"):
            record(**{f.name: value})


@pytest.mark.parametrize("record, f", OPTIONS, ids=_ids(OPTIONS))
def test_every_option_has_a_help_text_and_a_default_in_its_range(record, f):
    assert len(f.metadata["help"]) > 10
    assert getattr(record(), f.name) == f.default


def test_the_parts_names_and_the_options_names_are_all_different():
    names = [f.name for record in (KVLockConfig, *PARTS.values()) for f in fields(record)]
    assert len(names) == len(set(names))
    assert set(PARTS) <= set(names)


def test_a_part_says_the_value_and_what_was_expected():
    @dataclass(frozen=True)
    class Oven(Part):
        heat: float = option(180.0, "in degrees", (lambda x: 0 <= x <= 250, "0 to 250 degrees"))
        shelf: Literal["top", "middle"] = option("middle", "where the tray goes")

    assert Oven(20).heat == 20
    with pytest.raises(ValueError, match="^heat is 300; expected 0 to 250 degrees$"):
        Oven(300)
    with pytest.raises(ValueError, match="^shelf is 'floor'; expected one of top, middle$"):
        Oven(shelf="floor")


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: AdaptiveGuidance(3.0), "guidance_floor is 3.0; expected below guidance_boost, 2"),
        (lambda: AdaptiveGuidance(2.0), "guidance_floor is 2.0; expected below guidance_boost, 2"),
        (lambda: Guidance(lock_guidance=0.5), "lock_guidance is 0.5; expected 1 where the guid"),
        (lambda: KVLockConfig(lock_steps=51), "lock_steps is 51; expected at most num_inference"),
        (
            lambda: KVLockConfig(10, guidance=Guidance(zero_init_steps=11)),
            "zero_init_steps is 11; expected at most num_inference_steps, 10",
        ),
        (
            lambda: Guidance(projection=PARTS["projection"]()),
            "unconditional_scale is True; expected False beside a projection",
        ),
    ],
    ids=range(6),
)
def test_options_that_do_not_go_together_are_named(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make()


def test_a_fraction_above_nothing_is_a_step_at_least():
    config = KVLockConfig(4)
    assert [config.count(x) for x in (0, 0.0, 0.01, 0.5, 1.0, 3)] == [0, 0, 1, 2, 4, 3]
    assert KVLockConfig(50, source=Source(strength=0.001)).first_step == 49
    assert KVLockConfig(50, source=Source(strength=0.8)).first_step == 10
    assert Inject(0.3).weight(1, config) == 0.0 and Inject(0.5).weight(1, config) == 1.0
