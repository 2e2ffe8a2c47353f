"""Methods that are another guidance or another start, against loops written from their papers."""

import torch

from kvlock.methods.catalogue import method_config
from support import reference
from support.edits import OMEGA, SEQUENTIAL, STEPS, World, config, latents_of, make_request, short


def test_cfg_zero_star_zeroes_the_first_steps_and_projects(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    latents = world.noise
    for step in range(STEPS):
        cond, uncond = (world.velocity(latents, step, p) for p in (request.prompt, ""))
        scale = reference.optimal_scale(cond[0], uncond[0])
        guided = reference.guided(cond, uncond, OMEGA, scale)
        latents = solver.step(latents, guided if step >= 2 else torch.zeros_like(cond), step)
    settings = short("cfg-zero-star", zero_init_steps=2)
    result = latents_of(backbone, [request], settings, SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)


def test_cfg_zero_star_zeroes_two_steps_of_fifty():
    """The authors' code: steps 0 and 1 of 50."""
    config = method_config("cfg-zero-star", {}, {})
    assert config.count(config.guidance.zero_init_steps) == 2
    few = method_config("cfg-zero-star", {}, {"num_inference_steps": 6})
    assert few.count(few.guidance.zero_init_steps) == 1


def test_sdedit_starts_from_the_noised_source(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    first = 1  # 0.8 of 6 steps are 5
    sigma = world.sampler.sigmas[first]
    latents = (1 - sigma) * world.clean + sigma * world.noise
    for step in range(first, STEPS):
        latents = solver.step(latents, world.guided(latents, step, request.prompt, OMEGA), step)
    result = latents_of(backbone, [request], short("sdedit"), SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)


def test_latent_blend_puts_the_noised_source_back(backbone):
    request = make_request()
    world = World(backbone, request)
    latents = world.noise
    for step in range(STEPS):
        sigma, following = world.sampler.sigmas[step], world.sampler.sigmas[step + 1]
        guided = world.guided(latents, step, request.prompt, OMEGA)
        latents = latents + (following - sigma) * guided
        source = (1 - following) * world.clean + following * world.noise
        latents = world.inside * latents + (1 - world.inside) * source
    result = latents_of(backbone, [request], short("latent-blend"), SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)


def test_the_papers_own_schedule_against_a_slow_loop(backbone):
    """Without the K/V lock, whose forwards have tests of their own: s*, variance, omega, anchor."""
    request = make_request()
    world = World(backbone, request)
    inside, sampler = world.inside.bool(), world.sampler
    z, held = world.noise, []
    for step in range(STEPS):
        sigma, following = sampler.sigmas[step], sampler.sigmas[step + 1]
        variance = reference.variance(held[-10:], inside)
        _, omega = reference.control(variance, step, STEPS, 4, 0.02, OMEGA, 1.0, 2.0)
        cond, uncond = (world.velocity(z, step, p) for p in (request.prompt, ""))
        scale = reference.optimal_scale(cond[0], uncond[0], inside)
        velocity = reference.guided(cond, uncond, omega, scale)
        held.append((z - sigma * velocity)[0])
        z = z + (following - sigma) * velocity
        source = (1 - following) * world.clean + following * world.noise
        z = torch.where(inside, z, source)
    settings = config("s-omega", background_anchor="latents")
    result = latents_of(backbone, [request], settings, SEQUENTIAL)
    torch.testing.assert_close(result, z, atol=1e-3, rtol=1e-3)
