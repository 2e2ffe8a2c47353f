"""Classifier-free guidance with s* against slow loops, and what a step makes of its branches."""

import pytest
import torch

from kvlock.contract.types import Step
from kvlock.core.config import Guidance, KVLockConfig
from kvlock.core.guidance import combine, guide, optimal_scale
from support import reference
from support.draws import rand, randn
from support.edits import branches_of, make_backbone, make_request


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


KEPT = rand(2, 2, 3, 3, seed=3) > 0.4


@pytest.mark.parametrize("kept", [None, KEPT], ids=["all", "kept"])
def test_only_what_is_kept_has_a_say_in_s(kept):
    cond, uncond = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    regions = [None, None] if kept is None else kept
    slow = [reference.optimal_scale(c, u, r) for c, u, r in zip(cond, uncond, regions)]
    torch.testing.assert_close(optimal_scale(cond, uncond, kept), torch.tensor(slow))


@pytest.fixture(scope="module")
def world():
    """Backbone and request of the edits whose steps are combined here."""
    return make_backbone("wan"), [make_request(0), make_request(1)]


def _combined(world, guidance, index=3, branches=2, kept=None):
    config = KVLockConfig(num_inference_steps=10, guidance=guidance)
    of_edit = branches_of(*world, config)
    shape = of_edit.clips.source.shape
    predictions = [randn(*shape, seed=seed) for seed in range(branches)]
    step, omega = Step(index, branches == 2, False, False), torch.tensor([5.0, 2.0])
    latents = randn(*shape, seed=7)
    return predictions, combine(of_edit, step, predictions, omega, latents, kept, None)


def test_with_s_star_and_without(world):
    (cond, uncond), guided = _combined(world, Guidance())
    scale = optimal_scale(cond, uncond)
    assert torch.equal(guided.scale, scale)
    omega = torch.tensor([5.0, 2.0])
    assert torch.equal(guided.prediction, guide(cond, uncond, omega, scale))
    (cond, uncond), plain = _combined(world, Guidance(unconditional_scale=False))
    assert plain.scale is None
    expected = uncond + omega.view(2, 1, 1, 1, 1) * (cond - uncond)
    assert torch.equal(plain.prediction, expected)


@pytest.mark.parametrize("branches", [1, 2])
def test_the_first_steps_can_predict_nothing(world, branches):
    _, first = _combined(world, Guidance(zero_init_steps=2), index=1, branches=branches)
    assert torch.equal(first.prediction, torch.zeros_like(first.prediction)) and first.scale is None
    _, after = _combined(world, Guidance(zero_init_steps=2), index=2, branches=branches)
    assert after.prediction.abs().max() > 0


def test_a_step_without_guidance_is_the_conditional(world):
    (cond,), guided = _combined(world, Guidance(), branches=1)
    assert torch.equal(guided.prediction, cond) and guided.scale is None


def test_a_step_passes_on_what_is_kept(world):
    kept = branches_of(*world, KVLockConfig()).clips.foreground
    (cond, uncond), guided = _combined(world, Guidance(), kept=kept)
    assert torch.equal(guided.scale, optimal_scale(cond, uncond, kept))
    assert not torch.equal(guided.scale, optimal_scale(cond, uncond))


def test_a_projection_gets_clean_predictions_and_carries_on(world):
    """From the lock steps on; before them guidance is classifier-free."""
    seen = []

    class Noting:
        def combine(self, cond, uncond, omega, kept, carried):
            seen.append((cond, uncond, omega, kept, carried))
            return cond, uncond

    guidance = Guidance(unconditional_scale=False, projection=Noting())
    (cond, _), before = _combined(world, guidance, index=5)
    assert seen == [] and before.carried is None
    (cond, uncond), guided = _combined(world, guidance, index=6)
    sampler = branches_of(*world, KVLockConfig(10)).sampler
    latents = randn(*cond.shape, seed=7)
    assert torch.equal(seen[0][0], sampler.denoised(latents, cond, 6))
    assert torch.equal(guided.carried, sampler.denoised(latents, uncond, 6))
    torch.testing.assert_close(guided.prediction, cond, atol=1e-5, rtol=1e-5)
