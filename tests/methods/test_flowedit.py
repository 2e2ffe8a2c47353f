"""FlowEdit against a loop written from its paper."""

import dataclasses

import pytest
import torch

from kvlock.core.trace import NonFiniteError
from kvlock.methods.edit import edit_clips
from support import reference
from support.edits import OMEGA, STEPS, World, latents_of, make_request, short


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("guidance_scale", [1.0, OMEGA])
def test_flowedit(backbone, masked, guidance_scale):
    request = make_request()
    world = World(backbone, request)
    generator = torch.Generator().manual_seed(request.seed)
    noises = {step: world.draw(generator) for step in range(1, STEPS)}  # 0.82 of 6 steps are 5
    scales = (guidance_scale, 2.4 * guidance_scale) if guidance_scale > 1 else (1.0, 1.0)

    def v_source(latents, step):
        return world.guided(latents, step, request.source_prompt, scales[0])

    def v_target(latents, step):
        return world.guided(latents, step, request.prompt, scales[1])

    inside = world.inside if masked else None
    levels = world.sampler.sigmas
    expected = reference.flowedit(v_source, v_target, world.clean, noises, levels, inside)
    settings = short("flowedit-masked" if masked else "flowedit", guidance_scale=guidance_scale)
    result = latents_of(backbone, [request], settings)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-4)
    if masked:
        outside = (world.inside == 0).expand_as(world.clean[0])
        assert torch.equal(result[0][outside], world.clean[0][outside])


def test_flowedit_averages_its_noises(backbone):
    request = make_request()
    world = World(backbone, request, steps=1)
    generator = torch.Generator().manual_seed(request.seed)
    moves = []
    for _ in range(3):
        noise = {0: world.draw(generator)}

        def v_source(latents, step):
            return world.guided(latents, step, request.source_prompt, OMEGA)

        def v_target(latents, step):
            return world.guided(latents, step, request.prompt, 2.4 * OMEGA)

        levels = world.sampler.sigmas
        edited = reference.flowedit(v_source, v_target, world.clean, noise, levels)
        moves.append(edited - world.clean)
    settings = short("flowedit", num_inference_steps=1, num_noises=3)
    result = latents_of(backbone, [request], settings)
    torch.testing.assert_close(result, world.clean + sum(moves) / 3, atol=2e-4, rtol=1e-4)


def test_the_trace_has_the_targets_guidance(backbone):
    for scale, expected in ((OMEGA, 2.4 * OMEGA), (1.0, 1.0)):
        settings = short("flowedit", guidance_scale=scale)
        trace = edit_clips(backbone, [make_request()], settings)[0].trace
        assert [r.step for r in trace] == list(range(1, STEPS))
        assert {r.guidance_scale for r in trace} == {expected}
        assert {(r.variance, r.fusion_ratio, r.unconditional_scale) for r in trace} == {
            (None, 0.0, None)
        }


def test_an_edit_to_what_is_there_changes_nothing(backbone):
    """With one prompt and one guidance for both velocities, their difference is nothing."""
    request = make_request(prompt="a dog", source_prompt="a dog")
    settings = short("flowedit", target_boost=1.0)
    result = latents_of(backbone, [request], settings)
    clean = backbone.encode_video(request.video[None])
    torch.testing.assert_close(result, clean, atol=1e-4, rtol=1e-4)


def test_latents_that_stop_being_finite_are_named_with_their_step(backbone):
    calls, predict = [], backbone.predict

    def poisoned(latents, *rest):
        calls.append(1)
        return predict(latents, *rest) * (float("inf") if len(calls) == 2 else 1.0)

    backbone.predict = poisoned
    with pytest.raises(NonFiniteError, match="no longer finite after step 2"):
        edit_clips(backbone, [make_request()], short("flowedit"))


@pytest.mark.parametrize("method", ["sdedit", "flowedit", "flowedit-masked"])
def test_the_seed_matters_where_the_start_is_not_noise_alone(backbone, method):
    settings, request = short(method, strength=0.5), make_request()
    variants = [dataclasses.replace(request, seed=seed, background_seed=0) for seed in (0, 1)]
    first, second = (r.video.int() for r in edit_clips(backbone, variants, settings))
    alone = edit_clips(backbone, variants[1:], settings)[0].video.int()
    assert (first - second).abs().float().mean() > 0.5 and (second - alone).abs().max() <= 1
