"""Classifier-free guidance with s* against slow loops, and what a step makes of its branches."""

import pytest
import torch

from kvlock.core.config import Guidance, KVLockConfig
from kvlock.core.guidance import combine, guide, optimal_scale
from kvlock.core.types import Step
from support import reference
from support.draws import randn


def test_optimal_scale_and_guidance():
    conditional, unconditional = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    scale = optimal_scale(conditional, unconditional)
    clips = list(zip(conditional, unconditional))
    expected = torch.tensor([reference.optimal_scale(c, u) for c, u in clips])
    torch.testing.assert_close(scale, expected)
    omega = torch.tensor([5.0, 0.5])
    result = guide(conditional, unconditional, omega, scale)
    slow = [
        reference.guided(c, u, o, s) for (c, u), o, s in zip(clips, omega.tolist(), scale.tolist())
    ]
    torch.testing.assert_close(result, torch.stack(slow))


def test_guidance_of_one_is_the_conditional_and_s_is_the_best_projection():
    conditional, unconditional = randn(1, 4, 2, 3, 3), randn(1, 4, 2, 3, 3, seed=1)
    scale = optimal_scale(conditional, unconditional)
    guided = guide(conditional, unconditional, torch.ones(1), scale)
    torch.testing.assert_close(guided, conditional)

    def residual(s):
        return float((conditional - s * unconditional).square().sum())

    assert residual(scale.item()) < min(residual(scale.item() + d) for d in (-0.05, 0.05))


def _combined(guidance, index=3, branches=2):
    """Of a step of an edit in which nothing is projected, so that no sampler is asked."""
    predictions = [randn(2, 4, 2, 3, 3, seed=seed) for seed in range(branches)]
    config = KVLockConfig(num_inference_steps=10, guidance=guidance)
    step, omega = Step(index, branches == 2, False, False), torch.tensor([5.0, 2.0])
    latents = randn(2, 4, 2, 3, 3, seed=7)
    return predictions, combine(config, step, predictions, omega, latents, None, None)  # type: ignore[arg-type]


def test_with_s_star_and_without():
    (cond, uncond), guided = _combined(Guidance())
    scale = optimal_scale(cond, uncond)
    assert torch.equal(guided.scale, scale)
    omega = torch.tensor([5.0, 2.0])
    assert torch.equal(guided.prediction, guide(cond, uncond, omega, scale))
    (cond, uncond), plain = _combined(Guidance(unconditional_scale=False))
    assert plain.scale is None
    expected = uncond + omega.view(2, 1, 1, 1, 1) * (cond - uncond)
    assert torch.equal(plain.prediction, expected)


@pytest.mark.parametrize("branches", [1, 2])
def test_the_first_steps_can_predict_nothing(branches):
    _, first = _combined(Guidance(zero_init_steps=2), index=1, branches=branches)
    assert torch.equal(first.prediction, torch.zeros(2, 4, 2, 3, 3)) and first.scale is None
    _, after = _combined(Guidance(zero_init_steps=2), index=2, branches=branches)
    assert after.prediction.abs().max() > 0


def test_a_step_without_guidance_is_the_conditional():
    (cond,), guided = _combined(Guidance(), branches=1)
    assert torch.equal(guided.prediction, cond) and guided.scale is None
