"""Adaptive projected guidance against slow loops."""

import pytest
import torch

from kvlock.methods.apg import project
from kvlock.methods.parts import APG
from support import reference
from support.draws import rand, randn
from support.edits import OMEGA, SEQUENTIAL, STEPS, World, latents_of, make_request, short


@pytest.mark.parametrize("kept", [False, True], ids=["all", "kept"])
@pytest.mark.parametrize("apg", [APG(), APG(-0.25, 0.4)], ids=["defaults", "others"])
@pytest.mark.parametrize("spread", [0.01, 30.0], ids=["under the cap", "capped"])
def test_adaptive_projected_guidance(spread, apg, kept):
    omega, average, slow = torch.tensor([5.0, 2.0]), None, [None, None]
    region = rand(2, 2, 3, 3, seed=5) > 0.4 if kept else None
    for step in range(3):
        conditional = randn(2, 4, 2, 3, 3, seed=step)
        unconditional = conditional + spread * randn(2, 4, 2, 3, 3, seed=10 + step)
        result, average = project(conditional, unconditional, omega, average, apg, region)
        for clip in range(2):
            expected, slow[clip] = reference.projected(
                conditional[clip],
                unconditional[clip],
                float(omega[clip]),
                slow[clip],
                apg.apg_momentum,
                apg.apg_parallel,
                None if region is None else region[clip],
            )
            torch.testing.assert_close(result[clip], expected.float(), atol=1e-5, rtol=1e-4)


def test_with_all_that_is_parallel_it_is_classifier_free_under_the_cap():
    cond = randn(2, 4, 2, 3, 3)
    uncond = cond + 0.01 * randn(2, 4, 2, 3, 3, seed=1)
    result, _ = project(cond, uncond, torch.tensor([5.0, 2.0]), None, APG(0.0, 1.0))
    omega = torch.tensor([5.0, 2.0]).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(result, uncond + omega * (cond - uncond), atol=1e-5, rtol=1e-4)


def test_apg_works_on_denoised_predictions(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    latents, average = world.noise, None
    for step in range(STEPS):
        sigma = world.sampler.sigmas[step]
        cond, uncond = (
            latents - sigma * world.velocity(latents, step, p) for p in (request.prompt, "")
        )
        denoised, average = reference.projected(cond[0], uncond[0], OMEGA, average)
        latents = solver.step(latents, (latents - denoised[None].float()) / sigma, step)
    result = latents_of(backbone, [request], short("apg"), SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)


def test_anchored_apg_projects_what_is_kept_alone(backbone):
    request = make_request()
    world = World(backbone, request)
    latents, average, inside = world.noise, None, world.inside.bool()
    for step in range(STEPS):
        sigma, following = world.sampler.sigmas[step], world.sampler.sigmas[step + 1]
        cond, uncond = (
            latents - sigma * world.velocity(latents, step, p) for p in (request.prompt, "")
        )
        clean, average = reference.projected(cond[0], uncond[0], OMEGA, average, kept=inside)
        velocity = (latents - clean[None].float()) / sigma
        latents = latents + (following - sigma) * velocity
        source = (1 - following) * world.clean + following * world.noise
        latents = torch.where(inside, latents, source)
    result = latents_of(backbone, [request], short("apg-blend"), SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)
