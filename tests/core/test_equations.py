"""Fusion, variance, schedules and guidance against slow references."""

import pytest
import torch

import reference
from kvlock.core.config import KVLockConfig
from kvlock.core.fusion import fuse_, fusion_weight
from kvlock.core.guidance import guide, optimal_scale, project
from kvlock.core.inversion import shift_latents
from kvlock.core.schedule import constant_ratio, control_at, may_lock
from kvlock.core.variance import windowed_variance
from kvlock.methods.table import METHODS, FlowEditConfig, check_model, config_class, method_config


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tail", [(6,), (2, 3)], ids=["inner", "heads"])
def test_fusion(tail):
    new, source = _randn(2, 10, *tail), _randn(2, 10, *tail, seed=1)
    background = torch.rand(2, 10, generator=torch.Generator().manual_seed(2)) > 0.4
    alpha = torch.tensor([0.3, 0.8])
    expected = torch.stack(
        [
            reference.fuse(n.flatten(1), s.flatten(1), ~b, float(a)).view_as(n)
            for n, s, b, a in zip(new, source, background, alpha)
        ]
    )
    torch.testing.assert_close(fuse_(new.clone(), source, fusion_weight(alpha, background)), expected)


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


LATE = [m for m in METHODS if config_class(m) is KVLockConfig and not {"inject_steps", "lock_steps"} & set(METHODS[m])]


@pytest.mark.parametrize("method", LATE)
def test_every_method_of_the_last_steps_decides(method):
    config = method_config(method, {"threshold": 0.02}, {"num_inference_steps": 10})
    like, variance = torch.zeros(2), torch.tensor([0.001, 0.05])
    rest, late = control_at(config, 0, variance, like), control_at(config, 9, variance, like)
    assert torch.equal(rest.fusion_ratio, torch.zeros(2)) and torch.equal(rest.guidance_scale, torch.full((2,), 5.0))
    moving = ("kv-lock", "global", "kv-only", "paper-literal", "omega-min-1")
    expected = {"rigid": [1, 1], "fixed-0.5": [0.5, 0.5]} | {m: [0.05, 1.0] for m in moving}
    torch.testing.assert_close(late.fusion_ratio, torch.tensor(expected.get(method, [0.0, 0.0])).float())
    raised = {"kv-lock": [5, 10], "global": [5, 10], "omega-only": [5, 10], "s-omega": [5, 10]}
    raised |= {"paper-literal": [0.25, 10], "omega-min-1": [1, 10]}
    torch.testing.assert_close(late.guidance_scale, torch.tensor(raised.get(method, [5.0, 5.0])).float())
    assert may_lock(config, 9) == bool(late.fusion_ratio.any()) and not may_lock(config, 0)


@pytest.mark.parametrize("kind", ["sigmoid", "cosine", "linear"])
@pytest.mark.parametrize("inject", [1, 4, 10])
def test_progressive_injection(kind, inject):
    config = KVLockConfig(num_inference_steps=15, fusion_ratio=kind, lock_steps=1.0, inject_steps=inject)
    weights = [constant_ratio(config, step) for step in range(15)]
    assert weights == pytest.approx(reference.fading(kind, 15, inject))
    assert [may_lock(config, step) for step in range(15)] == [w > 0 for w in weights]
    assert sum(weights) > 0 and weights[-1] == 0


def test_injection_ends():
    config = KVLockConfig(num_inference_steps=10, fusion_ratio=1.0, lock_steps=1.0, inject_steps=3)
    assert [constant_ratio(config, s) for s in range(5)] == [1, 1, 1, 0, 0]
    assert [may_lock(config, s) for s in range(5)] == [True, True, True, False, False]
    inside = KVLockConfig(
        num_inference_steps=10, fusion_ratio=0.0, foreground_ratio=0.1, lock_steps=1.0, inject_steps=3
    )
    assert [may_lock(inside, s) for s in range(5)] == [True, True, True, False, False]
    early = KVLockConfig(num_inference_steps=10, lock_steps=1.0, inject_steps=3)
    assert [may_lock(early, s) for s in range(5)] == [True, True, True, False, False]
    assert control_at(early, 5, torch.tensor([1.0]), torch.zeros(1)).fusion_ratio == 0


def test_the_foreground_takes_its_share_too():
    new, source = _randn(1, 8, 4), _randn(1, 8, 4, seed=1)
    background = torch.tensor([[True, False] * 4])
    weight = fusion_weight(torch.tensor([1.0]), background, 0.1)
    fused = fuse_(new.clone(), source, weight)
    inside = torch.stack([0.9 * n + 0.1 * s for n, s in zip(new[0], source[0])])
    torch.testing.assert_close(fused, torch.where(background[..., None], source, inside))


@pytest.mark.parametrize("spread", [0.01, 30.0], ids=["under the cap", "capped"])
def test_adaptive_projected_guidance(spread):
    omega, average, slow = torch.tensor([5.0, 2.0]), None, [None, None]
    for step in range(3):
        conditional = _randn(2, 4, 2, 3, 3, seed=step)
        unconditional = conditional + spread * _randn(2, 4, 2, 3, 3, seed=10 + step)
        result, average = project(conditional, unconditional, omega, average)
        for clip in range(2):
            row = conditional[clip], unconditional[clip], float(omega[clip]), slow[clip]
            expected, slow[clip] = reference.projected(*row)
            torch.testing.assert_close(result[clip], expected.float(), atol=1e-5, rtol=1e-4)


def test_latents_shift():
    start, noise = 3 * _randn(2, 4, 2, 4, 4) + 1, _randn(2, 4, 2, 4, 4, seed=1)
    inside = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5
    result = shift_latents(start, noise, inside, 0.25)
    for clip in range(2):
        torch.testing.assert_close(result[clip], reference.shifted(start[clip], noise[clip], inside[clip], 0.25))


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
        ("foreground_ratio", 1.1),
        ("latents_shift", -0.1),
        ("inject_steps", 1.5),
        ("zero_init_steps", -1),
        ("guidance", "perp"),
        ("guidance_minimum", -1.0),
        ("source_path", "remembered"),
    ],
)
def test_config_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*expected"):
        KVLockConfig(**{field: value})


def test_unknown_method_and_field_are_named():
    with pytest.raises(ValueError, match="'magic' is unknown; expected one of kv-lock"):
        method_config("magic", {}, {})
    with pytest.raises(ValueError, match="no config field 'tau'; expected one of adaptive_guidance"):
        method_config("kv-lock", {}, {"tau": 1})
    with pytest.raises(ValueError, match="flowedit has no config field 'window'"):
        method_config("flowedit", {}, {"window": 3})
    with pytest.raises(ValueError, match="use it with a VACE model"):
        check_model("vace", is_vace=False)


@pytest.mark.parametrize(
    "field, value",
    [("num_inference_steps", 0), ("guidance_scale", 0.5), ("target_boost", -1), ("num_noises", 0), ("strength", 1.5)],
)
def test_flowedit_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*expected"):
        FlowEditConfig(**{field: value})
