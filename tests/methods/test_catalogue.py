"""Every method by name: what it decides, and which options it takes, refuses and uses."""

import pytest
import torch

from kvlock.contract.types import Measured
from kvlock.core.config import KVLockConfig
from kvlock.core.schedule import control_at, may_lock, plan_steps
from kvlock.methods.catalogue import CALIBRATED, METHODS, method_config, own_options
from kvlock.methods.options import OPTIONS, FlowEditConfig, flat, with_options
from support.edits import make_backbone, make_request, watched, wide_request
from support.options import NAMES, other_value

KV_LOCKS = [m for m, c in METHODS.items() if isinstance(c, KVLockConfig)]
LATE = [m for m in KV_LOCKS if not {"inject_steps", "lock_steps"} & set(own_options(m))]
USUAL = ((0.0, 0.5),)


def _decided(method, steps):
    """alpha and omega of two clips, one calm and one not, at the first and the last step."""
    defaults = {"threshold": 0.02} | ({"usual": USUAL} if method in CALIBRATED else {})
    config = method_config(method, defaults, {"num_inference_steps": steps})
    measured = Measured(config.signal.threshold * torch.tensor([0.05, 2.5]))
    plan = plan_steps(config, torch.linspace(1, 0, steps + 1).tolist())
    first, last = plan[0], plan[-1]
    return config, [control_at(config, s, measured, torch.zeros(2)) for s in (first, last)]


@pytest.mark.parametrize("method", LATE)
def test_every_method_of_the_last_steps_decides(method):
    config, (rest, late) = _decided(method, 10)
    assert torch.equal(rest.fusion_ratio, torch.zeros(2))
    assert torch.equal(rest.guidance_scale, torch.full((2,), 5.0))
    moving = ("kv-lock", "global", "kv-only", "paper-literal", "omega-min-1")
    expected = {"rigid": [1, 1], "fixed-0.5": [0.5, 0.5]} | {m: [0.05, 1.0] for m in moving}
    alpha = torch.tensor(expected.get(method, [0.0, 0.0])).float()
    torch.testing.assert_close(late.fusion_ratio, alpha)
    raised = {m: [5, 10] for m in ("kv-lock", "global", "omega-only", "s-omega")}
    raised |= {"paper-literal": [0.25, 10], "omega-min-1": [1, 10]}
    omega = torch.tensor(raised.get(method, [5.0, 5.0])).float()
    torch.testing.assert_close(late.guidance_scale, omega)
    assert may_lock(config, 9) == bool(late.fusion_ratio.any()) and not may_lock(config, 0)


OTHERS = {  # alpha and omega at the first step, then at the last
    "progressive": (1.0, 5.0, 0.0, 5.0),
    "progressive-cosine": (1.0, 5.0, 0.0, 5.0),
    "progressive-linear": (1.0, 5.0, 0.0, 5.0),
    "apg": (0.0, 5.0, 0.0, 5.0),
    "apg-blend": (0.0, 5.0, 0.0, 5.0),
    "calibrated": (0.0, 5.0, [0.05, 1.0], [5.0, 2.0]),
    "calibrated-spatial": (0.0, 5.0, [0.05, 1.0], [5.0, 2.0]),
    "calibrated-omega": (0.0, 5.0, 0.0, [5.0, 2.0]),
    "constant": (0.0, 5.0, 0.8, 4.25),
    "constant-omega": (0.0, 5.0, 0.0, 4.25),
    "drop-locked": (0.0, 5.0, 1.0, 4.25),
    "drop": (1.0, 5.0, 1.0, 4.25),
    "drop-2": (1.0, 5.0, 1.0, 4.25),
    "drop-4": (1.0, 5.0, 1.0, 4.25),
    "drop-context": (1.0, 5.0, 1.0, 4.25),
    "fast": (1.0, 5.0, 1.0, 1.0),
    "proedit": (1.0, 5.0, 0.0, 5.0),
}


@pytest.mark.parametrize("method", OTHERS)
def test_every_other_method_decides(method):
    _, controls = _decided(method, 10)
    expected = OTHERS[method]
    if method == "progressive":
        expected = (1 / (1 + 2.718281828 ** (5 * -0.7)), *expected[1:])
    for control, alpha, omega in zip(controls, expected[::2], expected[1::2]):
        wanted = torch.tensor(alpha).expand(2)
        torch.testing.assert_close(control.fusion_ratio, wanted)
        torch.testing.assert_close(control.guidance_scale, torch.tensor(omega).expand(2))


def test_there_are_no_other_methods():
    assert set(LATE) | set(OTHERS) == set(KV_LOCKS) and not set(LATE) & set(OTHERS)
    assert set(METHODS) - set(KV_LOCKS) == {"flowedit", "flowedit-masked", "flowedit-drop"}
    assert METHODS["kv-lock"] == KVLockConfig()


def _with(method, **options):
    defaults = {"usual": USUAL} if method in CALIBRATED else {}
    return method_config(method, defaults, options)


def test_every_option_is_tried():
    assert set(NAMES) == set(OPTIONS) | set(flat(FlowEditConfig()))


@pytest.mark.parametrize("method", METHODS)
def test_every_option_changes_a_method_or_is_refused_by_its_name(method):
    before = flat(_with(method))
    for name in NAMES:
        value = other_value(METHODS[method], name)
        try:
            after = flat(_with(method, **{name: value}))
        except ValueError as refused:
            assert name in str(refused) and "\n" not in str(refused)
            continue
        assert name in before, f"{name} of a part that is off"
        assert {n for n in after if after[n] != before[n]} == {name} and after[name] == value


# At four steps of a tiny model the variance is then 1.1 to 1.5 times what counts as full risk.
TOY = dict(num_inference_steps=4, threshold=0.004, inject_steps=0.75)
TOY_USUAL = ((0.5, 0.17), (0.75, 0.8))
UNGUIDED = dict(guidance_scale=1.0)
REPRESENTATIVES = {m: {} for m in ("kv-lock", "plain", "s-omega", "progressive", "apg", "proedit")}
REPRESENTATIVES |= {
    m: {} for m in ("cfg-zero-star", "constant", "fast", "flowedit-masked", "flowedit-drop")
}
REPRESENTATIVES |= {m: {} for m in ("drop-locked", "calibrated-spatial", "calibrated-omega")}
REPRESENTATIVES |= {
    f"{m}, no guidance": UNGUIDED
    for m in ("kv-lock", "s-omega", "apg", "constant-omega", "calibrated-omega", "flowedit")
}


@pytest.mark.parametrize("case", REPRESENTATIVES)
def test_every_option_that_is_taken_changes_the_edit_or_its_trace(case):
    method, fixed = case.split(",")[0], REPRESENTATIVES[case]
    backbone, dropping = make_backbone("wan"), getattr(METHODS[method], "drop", None)
    request = wide_request() if dropping else make_request()

    def edited(options):
        asked = dict(num_inference_steps=4) | fixed | options
        usual = {"usual": TOY_USUAL} if method in CALIBRATED else {}
        config = method_config(method, usual, asked)
        toy = {n: v for n, v in TOY.items() if n not in asked and n not in own_options(method)}
        toy |= {"inject_steps": 0.75} if "inject_steps" not in asked else {}
        results, latents = watched(backbone, [request], with_options(config, toy))
        return results[0].trace, latents

    before = edited({})
    for name in NAMES:
        if name in fixed or name == "guidance_scale_2":
            continue  # the second expert's, which tests/backbones/test_wan_22.py has
        try:
            trace, latents = edited({name: other_value(METHODS[method], name)})
        except ValueError as refused:
            assert name in str(refused)
            continue
        same = trace == before[0] and torch.equal(latents, before[1])
        assert not same, f"{name} is taken and passed over"


@pytest.mark.parametrize(
    "method, options, sentence",
    [
        ("magic", {}, "method 'magic' is unknown; expected one of kv-lock"),
        ("kv-lok", {}, "method 'kv-lok' is unknown; did you mean kv-lock?"),
        ("kv-lock", {"tau": 1}, "kv-lock has no option 'tau'; expected one of background_anchor"),
        ("kv-lock", {"fusion_ration": 1}, "no option 'fusion_ration'; did you mean fusion_ratio?"),
        ("flowedit", {"window": 3}, "window has no effect with flowedit, which has no signal"),
        (
            "plain",
            {"fusion_ratio": 0.5},
            "fusion_ratio has no effect with plain, which has no lock",
        ),
        ("plain", {"threshold": 0.5}, "threshold has no effect with plain: nothing in it hangs on"),
        ("plain", {"lock_steps": 3}, "lock_steps has no effect with plain: it does nothing else"),
        ("s-omega", dict(lock_steps=3, **UNGUIDED), "it does nothing else in the lock steps"),
        ("kv-lock", dict(guidance_boost=3.0, **UNGUIDED), "guidance is off, at --guidance-scale 1"),
        ("kv-lock", dict(prediction="guided", **UNGUIDED), "prediction .* guidance is off"),
        ("flowedit", dict(target_boost=3.0, **UNGUIDED), "target_boost .* guidance is off"),
        ("kv-lock", {"lock_guidance": 0.5}, "lock_guidance is 0.5; expected 1 where the guidance"),
        ("kv-lock", {"lock_guidance": 1.0}, "lock_guidance .*: its guidance follows the variance"),
        (
            "calibrated-omega",
            dict(lock_width=2.0, usual=USUAL),
            "lock_width has no effect .*: no lock in it follows the variance",
        ),
        ("kv-lock", {"source_refresh": 2}, "source_refresh has no effect .* which has no drop"),
        ("kv-lock", {"background_context": 0.5}, "background_context .* which has no drop"),
        ("apg", {"unconditional_scale": True}, "unconditional_scale is True; expected False"),
        ("kv-lock", {"threshold": 0}, "threshold is 0; expected above 0"),
    ],
)
def test_what_is_refused_is_named_with_what_to_do(method, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        method_config(method, {}, options)


def test_zero_init_needs_no_guidance():
    config = method_config("kv-lock", {}, dict(zero_init_steps=2, **UNGUIDED))
    assert config.guidance.zero_init_steps == 2


def test_the_users_options_win_over_the_methods_and_these_over_the_models():
    defaults = dict(threshold=0.5, guidance_scale=3.0, lock_steps=9, strength=0.3, tau=1)
    assert method_config("sdedit", defaults, {}).source.strength == 0.8
    assert method_config("sdedit", defaults, {}).guidance.guidance_scale == 3.0
    assert method_config("sdedit", defaults, {"strength": 0.5}).source.strength == 0.5
    assert method_config("kv-lock", defaults, {}).signal.threshold == 0.5
    assert method_config("kv-lock", defaults, {}).lock_steps == 9
    assert method_config("constant", defaults, {}).lock_steps == 0.7
    assert method_config("flowedit", defaults, {}).guidance_scale == 3.0
