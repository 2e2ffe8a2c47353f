"""Schedulers behind the core's Sampler."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from kvlock.backbones.sampler import FlowSampler, check_flow_matching, with_flow_shift
from support import tiny

KINDS = (tiny.scheduler, lambda: FlowMatchEulerDiscreteScheduler(shift=3.0))


@pytest.mark.parametrize("make", KINDS, ids=["UniPC", "Euler"])
@pytest.mark.parametrize("multistep", [True, False])
def test_a_sampler_given_the_true_velocity_ends_at_the_clean_latents(make, multistep):
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 2, 3, 4, 4, generator=generator) for _ in range(2))
    sampler = FlowSampler(make(), 8, multistep)
    latents = sampler.add_noise(clean, noise, 0)
    for step in range(8):
        expected = (1 - sampler.sigmas[step]) * clean + sampler.sigmas[step] * noise
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
        denoised = sampler.denoised(latents, noise - clean, step)
        torch.testing.assert_close(denoised, clean, atol=1e-4, rtol=0)
        back = sampler.prediction_for(latents, denoised, step)
        torch.testing.assert_close(back, noise - clean, atol=1e-4, rtol=0)
        latents = sampler.step(latents, noise - clean, step)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), UniPCMultistepScheduler()])
def test_schedulers_that_are_not_flow_matching_are_refused(scheduler):
    for use in (check_flow_matching, lambda s: FlowSampler(s, 4, True)):
        with pytest.raises(ValueError, match="not flow matching"):
            use(scheduler)


def test_flow_shift_is_known_to_both_scheduler_kinds():
    assert with_flow_shift(tiny.scheduler(), 5.0).config.flow_shift == 5.0
    assert with_flow_shift(FlowMatchEulerDiscreteScheduler(), 5.0).config.shift == 5.0
    assert with_flow_shift(tiny.scheduler(), None).config.flow_shift == 3.0
