"""The sampler knows alone what a prediction means; on diffusers' own schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from kvlock.backbones.sampler import FlowSampler, check_flow_matching, with_flow_shift
from support import tiny
from support.draws import randn

SCHEDULERS = {
    "unipc": tiny.scheduler,
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
}
STEPS = 6


@pytest.fixture(params=SCHEDULERS)
def scheduler(request):
    return SCHEDULERS[request.param]()


@pytest.fixture(params=[False, True], ids=["own steps", "the scheduler's steps"])
def sampler(scheduler, request):
    return FlowSampler(scheduler, STEPS, multistep=request.param)


def test_levels_fall_from_noise_to_clean(sampler):
    levels = sampler.sigmas
    assert len(levels) == STEPS + 1 and levels[-1] == 0 and levels[0] > 0.99
    assert sorted(levels, reverse=True) == levels


@pytest.mark.parametrize("step", range(STEPS))
def test_the_prediction_for_clean_latents_implies_them(sampler, step):
    latents, clean = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    prediction = sampler.prediction_for(latents, clean, step)
    torch.testing.assert_close(sampler.denoised(latents, prediction, step), clean)


@pytest.mark.parametrize("step", range(STEPS))
def test_the_velocity_from_clean_to_noise_is_what_it_means(sampler, step):
    clean, noise = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    latents = sampler.add_noise(clean, noise, step)
    sigma = sampler.sigmas[step]
    torch.testing.assert_close(latents, (1 - sigma) * clean + sigma * noise)
    torch.testing.assert_close(sampler.denoised(latents, noise - clean, step), clean)
    expected = noise - clean
    torch.testing.assert_close(
        sampler.prediction_for(latents, clean, step), expected, atol=1e-5, rtol=1e-5
    )


def test_a_perfect_prediction_walks_to_the_clean_latents(sampler):
    clean, noise = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    latents = sampler.add_noise(clean, noise, 0)
    for step in range(STEPS):
        prediction = sampler.prediction_for(latents, clean, step)
        latents = sampler.step(latents, prediction, step)
        if step + 1 < STEPS:
            expected = sampler.add_noise(clean, noise, step + 1)
            torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=1e-4)


def test_an_edit_may_begin_at_any_step(sampler):
    clean, noise = randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)
    latents = sampler.add_noise(clean, noise, 3)
    for step in range(3, STEPS):
        latents = sampler.step(latents, noise - clean, step)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=1e-4)


def test_the_models_timestep_falls_with_the_level_to_0(sampler):
    times = [float(sampler.timestep(step)) for step in range(STEPS + 1)]
    assert times[-1] == 0 and sorted(times, reverse=True) == times
    for time, level in zip(times, sampler.sigmas):
        assert time == pytest.approx(1000 * level, abs=1.0)


def test_each_edit_has_a_sampler_of_its_own(scheduler):
    first, second = (FlowSampler(scheduler, STEPS, multistep=True) for _ in range(2))
    latents, prediction = randn(1, 4, 2, 3, 3), randn(1, 4, 2, 3, 3, seed=1)
    moved = first.step(latents, prediction, 0)
    first.step(moved, prediction, 1)
    assert torch.equal(second.step(latents, prediction, 0), moved)


def test_a_shift_moves_the_levels(scheduler):
    same = FlowSampler(with_flow_shift(scheduler, None), STEPS, multistep=False).sigmas
    assert same == FlowSampler(scheduler, STEPS, multistep=False).sigmas
    higher = FlowSampler(with_flow_shift(scheduler, 8.0), STEPS, multistep=False).sigmas
    assert all(high > low for high, low in zip(higher[1:-1], same[1:-1]))


def test_other_kinds_of_schedulers_are_refused(scheduler):
    check_flow_matching(scheduler)
    with pytest.raises(ValueError, match="DDIMScheduler .* is not flow matching; expected Flow"):
        check_flow_matching(DDIMScheduler())
