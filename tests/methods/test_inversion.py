"""ProEdit and its inversion against loops written from their papers."""

import pytest
import torch

from kvlock.methods.inversion import inverted_path, shift_latents
from support import reference
from support.draws import rand, randn
from support.edits import (
    EXECUTIONS,
    OMEGA,
    SEQUENTIAL,
    STEPS,
    Unpacked,
    World,
    branches_of,
    config,
    latents_of,
    make_request,
    short,
)


@torch.no_grad()
def test_inversion(backbone):
    request = make_request()
    world = World(backbone, request)
    levels = world.sampler.sigmas

    def velocity(latents, sigma):
        return world.velocity(latents, levels.index(sigma), request.source_prompt)

    slow = reference.uni_inv(velocity, world.clean, levels)
    path = inverted_path(branches_of(backbone, [request], config()))
    assert len(path) == len(slow) == STEPS + 1 and torch.equal(path[-1], world.clean)
    torch.testing.assert_close(torch.cat(path), torch.cat(slow), atol=1e-5, rtol=1e-5)


def test_latents_shift():
    start, noise = 3 * randn(2, 4, 2, 4, 4) + 1, randn(2, 4, 2, 4, 4, seed=1)
    inside = rand(2, 2, 4, 4, seed=2) > 0.5
    result = shift_latents(start, noise, inside, 0.25)
    for clip in range(2):
        expected = reference.shifted(start[clip], noise[clip], inside[clip], 0.25)
        torch.testing.assert_close(result[clip], expected)


def test_proedit(backbone):
    """From the inverted, shifted start; the source's K and V in the first third, a tenth inside."""
    request = make_request()
    world = World(backbone, request)
    levels = world.sampler.sigmas

    def velocity(latents, sigma):
        return world.velocity(latents, levels.index(sigma), request.source_prompt)

    path = reference.uni_inv(velocity, world.clean, levels)
    inside = world.inside.bool()
    latents = reference.shifted(path[0][0], world.noise[0], inside, 0.25)[None]
    tokens = reference.token_mask(inside, backbone.patch_size)
    solver = backbone.sampler(STEPS, multistep=True)
    for step in range(STEPS):
        velocities = [
            _mixed(world, path[step], latents, step, prompt, request, tokens)
            if step < 2  # a third of 6
            else world.velocity(latents, step, prompt)
            for prompt in (request.prompt, "")
        ]
        guided = velocities[1] + OMEGA * (velocities[0] - velocities[1])
        latents = solver.step(latents, guided, step)
    settings = short("proedit")
    for execution in EXECUTIONS:
        result = latents_of(backbone, [request], settings, execution)
        torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)
    result = latents_of(Unpacked(backbone), [request], settings, SEQUENTIAL)
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)


def _mixed(world, source, latents, step, prompt, request, inside):
    """K = 0.9 K_new + 0.1 K_src on foreground tokens, K_src on the others, V the same.

    By plain forward hooks.
    """
    sites = world.backbone.attention_sites(world.sampler.timestep(step))
    trunk = [s.module for s in sites if not s.control]
    modules = [m for attention in trunk for m in (attention.norm_k, attention.to_v)]
    kept, hooks = {}, []
    for module in modules:
        keep = module.register_forward_hook(lambda m, _, out: kept.__setitem__(m, out))
        hooks.append(keep)
    world.velocity(source, step, request.source_prompt)
    for hook in hooks:
        hook.remove()

    def mix(module, _, new):
        old = kept[module]
        return torch.where(inside[None, :, None], 0.9 * new + 0.1 * old, old)

    hooks = [module.register_forward_hook(mix) for module in modules]
    velocity = world.velocity(latents, step, prompt)
    for hook in hooks:
        hook.remove()
    return velocity


@pytest.mark.parametrize("strength, first", [(0.7, 2), (0.5, 3)])
def test_an_inverted_edit_can_begin_later(backbone, strength, first):
    """At the source's own latents of that step, where nothing shifts or locks it."""
    settings = short("proedit", strength=strength, latents_shift=0.0, guidance_scale=1.0)
    request = make_request(prompt="a dog", source_prompt="a dog")
    path = inverted_path(branches_of(backbone, [request], settings))
    solver, world = backbone.sampler(STEPS, multistep=True), World(backbone, request)
    latents = path[first]
    for step in range(first, STEPS):
        latents = solver.step(latents, world.velocity(latents, step, "a dog"), step)
    result = latents_of(backbone, [request], settings)
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)
