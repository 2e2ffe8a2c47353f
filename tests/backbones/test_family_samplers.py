"""Samplers that are another than Wan's: v-prediction, reversed levels, shifts by size."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES

from kvlock.backbones.diffusion import DiffusionSampler
from kvlock.backbones.families import family_named
from kvlock.backbones.mochi import ReversedFlowSampler
from kvlock.backbones.sampler import with_flow_shift
from support.draws import randn
from support.pipes import PIPES
from support.tiny_family import TEXT_LENGTH

STEPS = 5  # divides 1000: the scheduler's own DDIM steps end at clean latents then alone
V = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
KINDS = {
    "v-prediction": (DiffusionSampler, CogVideoXDDIMScheduler(**V)),
    "dpm": (DiffusionSampler, CogVideoXDPMScheduler(**V)),
    "reversed": (ReversedFlowSampler, FlowMatchEulerDiscreteScheduler(invert_sigmas=True)),
}


@pytest.fixture(params=KINDS)
def sampler(request):
    cls, scheduler = KINDS[request.param]
    return cls(scheduler, STEPS, multistep=False)


def _clean_and_noise():
    return randn(2, 4, 2, 3, 3), randn(2, 4, 2, 3, 3, seed=1)


def _backbone(row):
    pipe = next(tiny for tiny in PIPES if tiny.row == row).pipe()
    return family_named(row).adapter_class()(pipe, TEXT_LENGTH)


def test_levels_fall_from_noise_to_clean_and_nothing_switches(sampler):
    assert sampler.sigmas[0] > 0.99 and sampler.sigmas[-1] == 0 and sampler.switch == STEPS
    assert (
        sorted(sampler.sigmas, reverse=True) == sampler.sigmas and len(sampler.sigmas) == STEPS + 1
    )


@pytest.mark.parametrize("step", range(STEPS))
def test_the_prediction_for_clean_latents_implies_them(sampler, step):
    clean, noise = _clean_and_noise()
    latents = sampler.add_noise(clean, noise, step)
    prediction = sampler.prediction_for(latents, clean, step)
    torch.testing.assert_close(sampler.denoised(latents, prediction, step), clean)


@pytest.mark.parametrize("multistep", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_walks_to_the_clean_latents(kind, multistep):
    cls, scheduler = KINDS[kind]
    sampler, (clean, noise) = cls(scheduler, STEPS, multistep), _clean_and_noise()
    latents = sampler.add_noise(clean, noise, 0)
    for step in range(STEPS):
        prediction = sampler.prediction_for(latents, clean, step)
        latents = sampler.step(latents, prediction, step)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("step", range(STEPS))
def test_v_is_what_it_means(step):
    """v = sqrt(a) noise - sqrt(1 - a) clean, with the schedule's own a."""
    scheduler, (clean, noise) = CogVideoXDDIMScheduler(**V), _clean_and_noise()
    sampler = DiffusionSampler(scheduler, STEPS, multistep=False)
    alpha = float(scheduler.alphas_cumprod[int(sampler.timestep(step))])
    latents = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
    torch.testing.assert_close(sampler.add_noise(clean, noise, step), latents)
    v = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    torch.testing.assert_close(sampler.denoised(latents, v, step), clean, atol=1e-5, rtol=1e-5)


def test_mochis_time_runs_from_noise_0_to_clean_1000():
    sampler = KINDS["reversed"][0](KINDS["reversed"][1], STEPS, multistep=False)
    for step in range(STEPS + 1):
        level = 1 - float(sampler.timestep(step)) / 1000
        assert level == pytest.approx(sampler.sigmas[step], abs=1e-6)


def test_schedulers_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="'epsilon' is no diffusion schedule of v-prediction"):
        DiffusionSampler(CogVideoXDDIMScheduler(), STEPS, multistep=False)
    with pytest.raises(ValueError, match="invert_sigmas=False; expected true"):
        ReversedFlowSampler(FlowMatchEulerDiscreteScheduler(), STEPS, multistep=False)
    with pytest.raises(ValueError, match="has no timestep shift; leave it out"):
        with_flow_shift(CogVideoXDDIMScheduler(), 3.0)


def test_ltx_shifts_more_where_there_are_more_tokens():
    backbone = _backbone("ltx")
    few, many = (backbone.sampler(STEPS, False, size).sigmas for size in ((2, 4, 4), (3, 4, 8)))
    assert all(high > low for high, low in zip(many[1:-2], few[1:-2]))
    backbone.pipe.scheduler = with_flow_shift(backbone.pipe.scheduler, 3.0)
    few, many = (backbone.sampler(STEPS, False, size).sigmas for size in ((2, 4, 4), (3, 4, 8)))
    assert few == many


def test_a_distilled_ltx_2_has_eight_levels_of_its_own():
    backbone = _backbone("ltx2")
    dynamic = backbone.sampler(8, False, (3, 8, 8)).sigmas
    backbone.pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    distilled = backbone.sampler(8, False, (3, 8, 8)).sigmas
    assert distilled[:-1] == pytest.approx(DISTILLED_SIGMA_VALUES) and distilled != dynamic
    assert len(backbone.sampler(9, False, (3, 8, 8)).sigmas) == 10
