"""Fusion, variance, schedules and guidance against slow references."""

import pytest
import torch

import reference
from kvlock.core.config import METHODS, KVLockConfig, method_config
from kvlock.core.fusion import fuse_, fuse_tokens_, fusion_weight
from kvlock.core.guidance import guide, optimal_scale
from kvlock.core.schedule import control_at, may_lock
from kvlock.core.variance import windowed_variance


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tail", [(6,), (2, 3)], ids=["inner", "heads"])
def test_fusion_of_the_whole_sequence_and_of_background_tokens(tail):
    new, source = _randn(2, 10, *tail), _randn(2, 10, *tail, seed=1)
    background = torch.rand(2, 10, generator=torch.Generator().manual_seed(2)) > 0.4
    alpha = torch.tensor([0.3, 0.8])
    expected = torch.stack(
        [
            reference.fuse(n.flatten(1), s.flatten(1), ~b, float(a)).view_as(n)
            for n, s, b, a in zip(new, source, background, alpha)
        ]
    )
    whole = fuse_(new.clone(), source, fusion_weight(alpha, background))
    tokens = fuse_tokens_(new.clone(), source[background], alpha, background)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_fusion_is_exact_at_both_ends(alpha):
    new, source = _randn(1, 8, 4), _randn(1, 8, 4, seed=1)
    background = torch.tensor([[True, False] * 4])
    fused = fuse_(new.clone(), source, fusion_weight(torch.tensor([alpha]), background))
    assert torch.equal(fused, torch.where(background[..., None], source, new) if alpha else new)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_windowed_variance(count):
    predictions = tuple(_randn(2, 3, 2, 4, 4, seed=i) for i in range(count))
    region = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(9)) > 0.5
    variance = windowed_variance(predictions, region)
    expected = [reference.variance([p[b] for p in predictions], region[b]) for b in range(2)]
    if count < 2:
        assert variance is None and expected == [None, None]
    else:
        torch.testing.assert_close(variance, torch.tensor(expected))


def test_variance_does_not_shrink_with_the_mask():
    predictions = tuple(_randn(1, 16, 4, 16, 16, seed=i) for i in range(6))
    small, large = torch.zeros(2, 1, 4, 16, 16, dtype=torch.bool)
    small[..., :4, :4], large[..., :12, :12] = True, True
    assert 0.8 < windowed_variance(predictions, small) / windowed_variance(predictions, large) < 1.25


@pytest.mark.parametrize("lower", [0.0, 1.0])
@pytest.mark.parametrize("variance", [None, 0.0, 0.004, 0.01, 0.015, 0.9])
@pytest.mark.parametrize("step", [0, 29, 30, 49])
def test_schedules(lower, variance, step):
    config = KVLockConfig(lock_steps=20, guidance_floor=lower)
    given = None if variance is None else torch.tensor([variance])
    control = control_at(config, step, given, like=torch.zeros(1))
    alpha, omega = reference.control(variance, step, 50, 20, 0.01, 5.0, lower, 2.0)
    assert control.fusion_ratio.item() == pytest.approx(alpha)
    assert control.guidance_scale.item() == pytest.approx(omega)


def test_guidance_that_is_off_stays_off():
    config = KVLockConfig(guidance_scale=1.0, lock_steps=1.0)
    control = control_at(config, 10, torch.tensor([0.5]), like=torch.zeros(1))
    assert control.guidance_scale.item() == 1.0 and control.fusion_ratio.item() == 1.0


def test_lock_steps_as_count_and_as_fraction():
    assert KVLockConfig(lock_steps=20).first_lock_step == KVLockConfig(lock_steps=0.4).first_lock_step == 30
    assert KVLockConfig(num_inference_steps=4, lock_steps=0.5).first_lock_step == 2
    assert KVLockConfig(lock_steps=0).first_lock_step == 50
    assert KVLockConfig(lock_steps=1.0).first_lock_step == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_config_and_decides(method):
    config = method_config(method, {"threshold": 0.02}, {"num_inference_steps": 10})
    like, variance = torch.zeros(2), torch.tensor([0.001, 0.05])
    rest, late = control_at(config, 0, variance, like), control_at(config, 9, variance, like)
    assert torch.equal(rest.fusion_ratio, torch.zeros(2)) and torch.equal(rest.guidance_scale, torch.full((2,), 5.0))
    expected = {"plain": [0, 0], "rigid": [1, 1], "fixed-0.5": [0.5, 0.5], "omega-only": [0, 0], "s-only": [0, 0]}
    expected |= {"s-omega": [0, 0]}
    torch.testing.assert_close(late.fusion_ratio, torch.tensor(expected.get(method, [0.05, 1.0])).float())
    raised = {"kv-lock": [5, 10], "global": [5, 10], "omega-only": [5, 10], "s-omega": [5, 10]}
    raised |= {"paper-literal": [0.25, 10]}
    torch.testing.assert_close(late.guidance_scale, torch.tensor(raised.get(method, [5.0, 5.0])).float())
    assert may_lock(config, 9) == bool(late.fusion_ratio.any()) and not may_lock(config, 0)


def test_optimal_scale_and_guidance():
    conditional, unconditional = _randn(2, 4, 2, 3, 3), _randn(2, 4, 2, 3, 3, seed=1)
    scale = optimal_scale(conditional, unconditional)
    expected = torch.tensor([reference.optimal_scale(c, u) for c, u in zip(conditional, unconditional)])
    torch.testing.assert_close(scale, expected)
    omega = torch.tensor([5.0, 0.5])
    result = guide(conditional, unconditional, omega, scale)
    slow = [reference.guided(*row) for row in zip(conditional, unconditional, omega.tolist(), scale.tolist())]
    torch.testing.assert_close(result, torch.stack(slow))


def test_guidance_of_one_is_the_conditional_and_s_is_the_best_projection():
    conditional, unconditional = _randn(1, 4, 2, 3, 3), _randn(1, 4, 2, 3, 3, seed=1)
    scale = optimal_scale(conditional, unconditional)
    torch.testing.assert_close(guide(conditional, unconditional, torch.ones(1), scale), conditional)

    def residual(s):
        return float((conditional - s * unconditional).square().sum())

    assert residual(scale.item()) < min(residual(scale.item() + d) for d in (-0.05, 0.05))


@pytest.mark.parametrize(
    "field, value",
    [
        ("num_inference_steps", 0),
        ("guidance_scale", 0.5),
        ("fusion_ratio", 1.5),
        ("fusion_ratio", "often"),
        ("lock_steps", 51),
        ("lock_steps", 1.5),
        ("window", 1),
        ("threshold", 0.0),
        ("guidance_floor", 3.0),
        ("detection", "both"),
        ("background_anchor", "pixels"),
        ("strength", 0.0),
        ("rows", "parallel"),
    ],
)
def test_config_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*expected"):
        KVLockConfig(**{field: value})


def test_unknown_method_and_field_are_named():
    with pytest.raises(ValueError, match="'magic' is unknown; expected one of kv-lock"):
        method_config("magic", {}, {})
    with pytest.raises(ValueError, match="'tau' is unknown"):
        method_config("kv-lock", {}, {"tau": 1})
