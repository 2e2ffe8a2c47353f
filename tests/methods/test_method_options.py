"""Configs as flat options and as JSON."""

import json
from dataclasses import fields

import pytest

from kvlock.core.config import Guidance, KVLockConfig, Lock, Signal, Source
from kvlock.methods.catalogue import METHODS
from kvlock.methods.options import (
    OPTIONS,
    PARTS,
    FlowEditConfig,
    chosen_options,
    config_from_dict,
    config_to_dict,
    flat,
    with_options,
)
from kvlock.methods.parts import APG, Calibration, Drop, Inject, Inversion
from support.options import NAMES, other_value

USUAL = ((0.0, 0.5), (0.5, 1 / 3))
FULL = {  # every part is on in one of them
    "adaptive": KVLockConfig(
        lock=Lock("variance", Inject()),
        signal=Signal(calibration=Calibration(USUAL)),
        source=Source(inversion=Inversion()),
    ),
    "steady": KVLockConfig(
        lock=Lock(1.0),
        guidance=Guidance(adaptive=None, unconditional_scale=False, projection=APG()),
        drop=Drop("locked"),
    ),
    "free": KVLockConfig(lock=None, guidance=Guidance(adaptive=None), drop=Drop()),
    "flowedit": FlowEditConfig(),
}
CONFIGS = METHODS | FULL


def _again(config):
    record = json.loads(json.dumps(config_to_dict(config)))
    return config_from_dict(type(config), record)


def _changed(config):
    """Each option that goes with the rest at another value, and the config with it."""
    for option in NAMES:
        if option in flat(config):
            try:
                yield option, with_options(config, {option: other_value(config, option)})
            except ValueError as refused:
                assert option in str(refused)


def _same(first, second):
    """Equal, and counts are not shares of steps: 1 is not 1.0."""
    return first == second and repr(first) == repr(second)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_through_json_and_back(name):
    assert _same(_again(CONFIGS[name]), CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_through_json_and_back(name):
    config, changed = CONFIGS[name], dict(_changed(CONFIGS[name]))
    for other in changed.values():
        assert _same(_again(other), other) and other != config
    assert len(changed) >= (5 if isinstance(config, FlowEditConfig) else 9)


def test_counts_and_shares_stay_what_they_are():
    for steps in (1, 1.0):
        config = KVLockConfig(lock_steps=steps)
        assert type(_again(config).lock_steps) is type(steps)
        assert chosen_options(config) == {"lock_steps": steps}
    assert chosen_options(KVLockConfig(lock=None, drop=Drop(source_refresh=1))) == {
        "lock": None,
        "drop": True,
    }


@pytest.mark.parametrize(
    "kind, record",
    [
        (KVLockConfig, {"steps": 50}),
        (KVLockConfig, {"lock_steps": 51}),
        (KVLockConfig, {"lock_steps": "many"}),
        (KVLockConfig, {"signal": {"tau": 0.1}}),
        (KVLockConfig, {"signal": {"window": 1}}),
        (KVLockConfig, {"guidance": {"adaptive": {"guidance_floor": 9.0}}}),
        (KVLockConfig, {"drop": {"drop_steps": "all"}}),
        (KVLockConfig, {"signal": None}),
        (KVLockConfig, {"lock": {"fusion_ratio": "0.5"}}),
        (KVLockConfig, {"guidance": {"guidance_interval": None}}),
        (KVLockConfig, {"guidance": {"guidance_interval": ["0", "1"]}}),
        (KVLockConfig, {"signal": {"calibration": {"usual": [[0.5]]}}}),
        (KVLockConfig, {"num_inference_steps": True}),
        (FlowEditConfig, {"lock_steps": 3}),
    ],
)
def test_a_record_that_is_no_config_is_refused(kind, record):
    with pytest.raises(ValueError, match="expected "):
        config_from_dict(kind, record)


@pytest.mark.parametrize("name", CONFIGS)
def test_flat_options_are_those_of_the_parts_that_are_on(name):
    config = CONFIGS[name]
    options = flat(config)
    assert not set(options) & set(PARTS)
    assert _same(with_options(config, options), config)
    if isinstance(config, KVLockConfig):
        on = {"", "signal", "guidance", "source"} | {
            part
            for part, value in {
                "lock": config.lock,
                "injection": config.lock and config.lock.injection,
                "calibration": config.signal.calibration,
                "adaptive": config.guidance.adaptive,
                "projection": config.guidance.projection,
                "inversion": config.source.inversion,
                "drop": config.drop,
            }.items()
            if value
        }
        assert set(options) == {option for option, part in OPTIONS.items() if part in on}


def test_every_option_belongs_to_one_part():
    for part, record in PARTS.items():
        for f in fields(record):
            assert f.name in PARTS or OPTIONS[f.name] == part
    assert len(OPTIONS) == 2 + sum(
        f.name not in PARTS for record in PARTS.values() for f in fields(record)
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_is_changed_is_chosen(name):
    config = CONFIGS[name]
    chosen, options = chosen_options(config), flat(config)
    for option, other in _changed(config):
        now = chosen_options(other)
        assert repr(now) != repr(chosen)
        assert {n for n in now | chosen if n != option} == {n for n in chosen if n != option}
    for option, value in chosen.items():
        assert option in PARTS or options[option] == value
    assert {n for n in chosen if n in PARTS and chosen[n] is None} <= {"lock", "adaptive"}


def test_parts_on_and_off_are_chosen():
    assert chosen_options(KVLockConfig(lock=None)) == {"lock": None}
    assert chosen_options(KVLockConfig(guidance=Guidance(adaptive=None))) == {"adaptive": None}
    assert chosen_options(KVLockConfig(lock=Lock(injection=Inject()))) == {"injection": True}
    assert chosen_options(FULL["adaptive"]) == {
        "injection": True,
        "calibration": True,
        "usual": USUAL,
        "inversion": True,
    }


def test_the_defaults_are_chosen_by_nobody():
    assert chosen_options(KVLockConfig()) == {} == chosen_options(FlowEditConfig())


def test_methods_differ_in_what_is_chosen():
    """But for `vace`, which is `plain` on a model of its own."""
    chosen = [repr(chosen_options(c)) + type(c).__name__ for m, c in METHODS.items() if m != "vace"]
    assert len(set(chosen)) == len(METHODS) - 1
