"""The plan of the steps, and the schedules against the printed ones."""

import pytest
import torch

from kvlock.contract.types import Measured, Step
from kvlock.core.config import AdaptiveGuidance, Guidance, KVLockConfig, Lock, Signal, Source
from kvlock.core.schedule import control_at, may_lock, plan_steps
from support import reference


def levels(steps):
    """Noise levels of so many steps, evenly from 1 to 0."""
    return torch.linspace(1, 0, steps + 1).tolist()


def control(config, step, variance=None):
    """Of one clip at a planned step."""
    measured = None if variance is None else Measured(torch.tensor([variance]))
    planned = plan_steps(config, levels(config.num_inference_steps))
    return control_at(config, planned[step], measured, like=torch.zeros(1))


@pytest.mark.parametrize("lower", [0.0, 1.0])
@pytest.mark.parametrize("variance", [None, 0.0, 0.004, 0.01, 0.015, 0.9])
@pytest.mark.parametrize("step", [0, 29, 30, 49])
def test_schedules(lower, variance, step):
    config = KVLockConfig(lock_steps=20, guidance=Guidance(adaptive=AdaptiveGuidance(lower)))
    decided = control(config, step, variance)
    alpha, omega = reference.control(variance, step, 50, 20, 0.01, 5.0, lower, 2.0)
    assert decided.fusion_ratio.item() == pytest.approx(alpha)
    assert decided.guidance_scale.item() == pytest.approx(omega)


def test_every_clip_has_its_own_alpha_and_omega():
    config, variances = KVLockConfig(lock_steps=20), [0.004, 0.9]
    step = plan_steps(config, levels(50))[40]
    both = control_at(config, step, Measured(torch.tensor(variances)), torch.zeros(2))
    for clip, variance in enumerate(variances):
        alone = control(config, 40, variance)
        assert both.fusion_ratio[clip] == alone.fusion_ratio
        assert both.guidance_scale[clip] == alone.guidance_scale


def test_guidance_that_is_off_stays_off():
    config = KVLockConfig(lock_steps=1.0, guidance=Guidance(guidance_scale=1.0))
    decided = control(config, 10, 0.5)
    assert decided.guidance_scale.item() == 1.0 and decided.fusion_ratio.item() == 1.0


@pytest.mark.parametrize("variance", [0.0, 0.2, 0.5, 1.0, 2.0, 9.0])
def test_risk_lowers_the_guidance(variance):
    adaptive = AdaptiveGuidance(0.25, 1.0, guidance_response="lower")
    config = KVLockConfig(signal=Signal(threshold=0.5), guidance=Guidance(adaptive=adaptive))
    expected = 5.0 if variance == 0 else 5.0 * min(max(0.5 / variance, 0.25), 1.0)
    assert control(config, 49, variance).guidance_scale.item() == pytest.approx(expected)


@pytest.mark.parametrize("variance", [None, 0.001, 9.0])
def test_steady_guidance_and_a_steady_lock_need_no_variance(variance):
    config = KVLockConfig(
        num_inference_steps=10,
        lock_steps=4,
        lock=Lock(0.8),
        guidance=Guidance(adaptive=None, lock_guidance=0.85),
    )
    decided = [control(config, step, variance) for step in range(10)]
    assert [c.fusion_ratio.item() for c in decided] == pytest.approx([0.0] * 6 + [0.8] * 4)
    assert [c.guidance_scale.item() for c in decided] == pytest.approx([5.0] * 6 + [4.25] * 4)


def test_each_token_has_its_own_alpha():
    config = KVLockConfig(lock_steps=1.0, signal=Signal(threshold=0.5))
    nearby, nearness = torch.tensor([[[0.1, 0.5, 2.0, 2.0]], [[1.0, 0.5, 0.25, 0.0]]])
    measured = Measured(torch.tensor([0.3]), nearby, nearness)
    decided = control_at(config, plan_steps(config, levels(50))[3], measured, torch.zeros(1))
    torch.testing.assert_close(decided.fusion_ratio, torch.tensor([[0.2, 0.5, 0.25, 0.0]]))


def test_lock_steps_as_count_and_as_fraction():
    as_count, as_share = KVLockConfig(lock_steps=20), KVLockConfig(lock_steps=0.4)
    assert as_count.first_lock_step == as_share.first_lock_step == 30
    assert KVLockConfig(num_inference_steps=4, lock_steps=0.5).first_lock_step == 2
    assert KVLockConfig(lock_steps=0).first_lock_step == 50
    assert KVLockConfig(lock_steps=1.0).first_lock_step == 0


def test_the_window_as_a_share_of_the_steps():
    windows = [KVLockConfig(n, signal=Signal(1 / 6)).window_steps for n in (4, 12, 30, 50)]
    assert windows == [2, 2, 5, 8]
    assert KVLockConfig(50, signal=Signal(7)).window_steps == 7


def test_the_plan_says_which_forwards_each_step_makes():
    guidance = Guidance(guidance_interval=(0.25, 0.75))
    config = KVLockConfig(num_inference_steps=8, lock_steps=3, guidance=guidance)
    plan = plan_steps(config, levels(8))
    assert [step.index for step in plan] == list(range(8))
    assert [step.guided for step in plan] == [2 <= k <= 6 for k in range(8)]
    assert [step.source for step in plan] == [k >= 5 for k in range(8)]
    assert not any(step.dropped for step in plan)


def test_the_plan_begins_where_the_strength_says():
    config = KVLockConfig(num_inference_steps=8, source=Source(strength=0.5))
    assert [step.index for step in plan_steps(config, levels(8))] == [4, 5, 6, 7]


def test_without_guidance_or_lock_there_is_one_forward_a_step():
    config = KVLockConfig(lock=None, guidance=Guidance(guidance_scale=1.0))
    assert {step.kind for step in plan_steps(config, levels(50))} == {(False, False, False)}
    assert not any(may_lock(config, step) for step in range(50))


def test_a_step_that_drops_the_background_has_alpha_1():
    step = Step(0, guided=True, source=False, dropped=True)
    decided = control_at(KVLockConfig(lock=None), step, None, torch.zeros(2))
    assert torch.equal(decided.fusion_ratio, torch.ones(2))
    assert torch.equal(decided.guidance_scale, torch.full((2,), 5.0))
