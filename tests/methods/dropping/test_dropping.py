"""Edits whose background is not computed, against full computations in slow steps."""

import dataclasses

import pytest
import torch

from kvlock.core import edit as kv_lock
from kvlock.core.clips import prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.methods.dropping.tokens import computed_latents, computed_tokens, token_sets
from kvlock.methods.edit import edit_clips
from support import reference
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    STEPS,
    Unpacked,
    config,
    counted,
    dropped,
    latents_of,
    short,
    watching,
    wide_request,
)

FREE = config("plain", background_anchor="none")


class _SlowProcessor:
    """Self-attention over the visible tokens; an edit's background keys are the source's last."""

    def __init__(self, computed, visible):
        self.computed, self.visible = computed, visible
        self.is_source = False

    def __call__(self, attn, hidden_states, text=None, attention_mask=None, rotary_emb=None):
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        query, key = (reference.rope_rotate(x, *rotary_emb) for x in (query, key))
        if self.is_source:
            self.key, self.value = key, value
        own = self.computed[None, :, None, None]
        key, value = torch.where(own, key, self.key), torch.where(own, value, self.value)
        out = reference.attention(query, key[:, self.visible], value[:, self.visible])
        return attn.to_out[0](out.flatten(2))


def _slow_velocity(backbone, clips, sampler, computed, visible):
    """(latents, prompt, step, is_source) -> the velocity by one whole branch, seen tokens alone."""
    sites = backbone.attention_sites(torch.tensor(0.0))
    processors = [_SlowProcessor(computed, visible) for _ in sites]
    for site, processor in zip(sites, processors):
        site.module.processor = processor

    def velocity(latents, prompt, step, is_source=False):
        for processor in processors:
            processor.is_source = is_source
        encoded, time = backbone.encode_prompt([prompt]), sampler.timestep(step)[None]
        return backbone.predict(latents, time, encoded, clips.condition)

    return velocity


@torch.no_grad()
def _slow_edit(backbone, request, config):
    """The full computation with alpha = 1 and the source's latents pasted, one branch a forward.

    With APG, and with omega as `fast` has it: 0.85 of omega_0 in the lock steps, 1 outside the
    interval.
    """
    clips, drop = prepare_clips(backbone, [request]), config.drop
    sampler = backbone.sampler(config.num_inference_steps, multistep=False)
    computed = computed_tokens(clips.foreground, backbone.patch_size, drop.drop_margin)
    sets = token_sets(computed[0], drop.background_context)
    visible = torch.zeros(computed.numel(), dtype=torch.bool).index_fill(0, sets.source, True)
    own = computed_latents(computed, backbone.patch_size)
    kept = clips.foreground if config.source.background_anchor == "latents" else own
    every = drop.source_refresh if drop.source_refresh >= 1 else round(drop.source_refresh * STEPS)
    velocity = _slow_velocity(backbone, clips, sampler, computed.flatten(), visible)
    guidance = config.guidance
    latents, average = clips.start, None
    for step in range(config.num_inference_steps):
        sigma = sampler.sigmas[step]
        if step % every == 0:
            source = sampler.add_noise(clips.source, clips.noise, step)
            velocity(source, request.source_prompt, step, is_source=True)

        def denoised(prompt, step=step, sigma=sigma, latents=latents):
            clean = latents - sigma * velocity(latents, prompt, step)
            return torch.where(own[:, None], clean, clips.source)

        clean = denoised(request.prompt)
        if guidance.guidance_interval[0] <= sigma <= guidance.guidance_interval[1]:
            uncond = denoised(request.negative_prompt)
            if guidance.projection and step >= STEPS - config.lock_steps:
                omega = 0.85 * guidance.guidance_scale
                projected = reference.projected(clean[0], uncond[0], omega, average, kept=kept[0])
                clean, average = projected[0][None].float(), projected[1]
            else:
                clean = uncond + guidance.guidance_scale * (clean - uncond)
        latents = sampler.step(latents, (latents - clean) / sigma, step)
        source = sampler.add_noise(clips.source, clips.noise, step + 1)
        latents = torch.where(kept[:, None], latents, source)
    return latents


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(drop_margin=0),
        dict(source_refresh=2),
        dict(background_context=0.4, drop_margin=0),
    ],
    ids=["all", "no margin", "refresh 2", "context"],
)
def test_dropping_is_the_full_computation_with_alpha_1_and_pasted_latents(backbone, options):
    request, settings = wide_request(), dropped(FREE, **options)
    fast = latents_of(backbone, [request], settings)
    slow = _slow_edit(backbone, request, settings)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)


def test_fast_is_what_the_slow_steps_give(backbone):
    """Margin computed but not kept, source every 2nd of 6 steps, context, APG in an interval."""
    request, settings = wide_request(), config("fast")
    levels = backbone.sampler(STEPS, multistep=False).sigmas
    guided = [0.5 <= sigma for sigma in levels[:STEPS]]
    assert 0 < sum(guided) < STEPS and settings.drop.refresh_steps(settings) == 2
    fast = latents_of(backbone, [request], settings)
    slow = _slow_edit(backbone, request, settings)
    torch.testing.assert_close(fast, slow, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def _slow_flowedit(backbone, request, settings):
    """FlowEdit inside the mask whose branches all see the source's background keys and values."""
    clips, drop = prepare_clips(backbone, [request]), settings.drop
    sampler = backbone.sampler(STEPS, multistep=False)
    computed = computed_tokens(clips.foreground, backbone.patch_size, drop.drop_margin)
    sets = token_sets(computed[0], drop.background_context)
    visible = torch.zeros(computed.numel(), dtype=torch.bool).index_fill(0, sets.source, True)
    velocity = _slow_velocity(backbone, clips, sampler, computed.flatten(), visible)

    generator = torch.Generator().manual_seed(request.seed)
    shape, omega = clips.source.shape[1:], settings.guidance_scale
    noises = {step: torch.randn(shape, generator=generator)[None] for step in range(1, STEPS)}

    def guided(latents, prompt, step, omega):
        source = sampler.add_noise(clips.source, noises[step], step)
        velocity(source, request.source_prompt, step, is_source=True)
        cond, uncond = (velocity(latents, p, step) for p in (prompt, request.negative_prompt))
        return uncond + omega * (cond - uncond)

    return reference.flowedit(
        lambda latents, step: guided(latents, request.source_prompt, step, omega),
        lambda latents, step: guided(latents, request.prompt, step, 2.4 * omega),
        clips.source,
        noises,
        sampler.sigmas,
        clips.foreground[:, None].float(),
    )


@pytest.mark.parametrize("options", [dict(), dict(background_context=0.4, drop_margin=0)])
def test_flowedit_drops_what_full_computations_would_take_of_the_source(backbone, options):
    request, settings = wide_request(), dropped(short("flowedit-drop"), **options)
    fast = latents_of(backbone, [request], settings)
    slow = _slow_flowedit(backbone, request, settings)
    torch.testing.assert_close(fast, slow, atol=2e-4, rtol=1e-4)
    clean = backbone.encode_video(request.video[None])
    outside = ~prepare_clips(backbone, [request]).foreground[:, None].expand_as(clean)
    assert torch.equal(fast[outside], clean[outside])


def test_flowedit_without_a_background_is_flowedit(backbone):
    """Where all is computed there is nothing that could be dropped."""
    request = dataclasses.replace(wide_request(), mask=torch.ones_like(wide_request().mask))
    fast, whole = (
        latents_of(backbone, [request], short(name))
        for name in ("flowedit-drop", "flowedit-masked")
    )
    torch.testing.assert_close(fast, whole, atol=2e-4, rtol=1e-4)


def test_clips_are_dropped_one_by_one(backbone):
    """Edits of one source with their own noise and prompt, together and alone."""
    first = wide_request()
    requests = [first, dataclasses.replace(first, seed=5, background_seed=0, prompt="a star")]
    together = latents_of(backbone, requests, short("flowedit-drop"))
    for number, request in enumerate(requests):
        alone = latents_of(backbone, [request], short("flowedit-drop"))
        torch.testing.assert_close(together[number : number + 1], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(masked=False), "masked is False; expected True with drop"),
        (dict(drop_steps="locked"), "drop_steps is 'locked'"),
        (dict(source_refresh=2), "source_refresh 2"),
    ],
)
def test_flowedit_refuses_what_it_cannot_drop(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        short("flowedit-drop", **options)


def test_what_is_dropped_is_the_source_and_s_star_knows_it(backbone):
    """What every branch of a step that drops predicts of dropped latents is the source."""
    request, seen = wide_request(), []
    clips = prepare_clips(backbone, [request])
    clean = clips.source
    settings = dropped(config(background_anchor="none"), drop_steps="locked", drop_margin=0)
    report = lambda step, branches: seen.append((step, branches))  # noqa: E731
    make = watching(settings, BATCHED, report)
    result = kv_lock.edit_clips(backbone, [request], settings, make_forwards=make)[0]
    tokens = computed_tokens(clips.foreground, backbone.patch_size, 0)
    own = computed_latents(tokens, backbone.patch_size)[:, None].expand_as(clean)
    assert [step.dropped for step, _ in seen] == [False] * 2 + [True] * 4
    for step, branches in seen:
        assert len(branches) == 2
        for branch in branches:
            assert torch.allclose(branch[~own], clean[~own], atol=1e-5) == step.dropped
    assert [r.fusion_ratio for r in result.trace] == [0.0] * 2 + [1.0] * 4
    latents = latents_of(backbone, [request], settings)
    assert torch.equal(latents[~own], clean[~own])
    assert not torch.allclose(latents[own], clean[own])


def test_clips_of_different_masks_are_dropped_together_as_alone(backbone):
    requests = [wide_request(0), wide_request(1)]
    settings = dropped(config(), drop_steps="locked", source_refresh=2)
    together = latents_of(backbone, requests, settings)
    alone = torch.cat([latents_of(backbone, [r], settings) for r in requests])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [dict(), dict(source_refresh=4)], ids=["each step", "each 4th"])
def test_the_source_runs_as_often_as_it_should(backbone, options):
    counts = counted(backbone)
    edit_clips(backbone, [wide_request()], dropped(config("s-omega"), **options))
    every = options.get("source_refresh", 1)
    assert counts == [2 + (step % every == 0) for step in range(STEPS)]
    counts.clear()
    locked = dropped(config(), drop_steps="locked", **options)
    edit_clips(backbone, [wide_request()], locked)
    assert counts == [2, 2] + [2 + (step % every == 0) for step in range(4)]


def test_steps_that_do_not_drop_run_as_the_execution_says(backbone):
    settings, requests = dropped(config(), drop_steps="locked"), [wide_request()]
    batched, sequential = (
        latents_of(backbone, requests, settings, e) for e in (BATCHED, SEQUENTIAL)
    )
    torch.testing.assert_close(batched, sequential, atol=1e-4, rtol=0)
    counts = counted(backbone)
    edit_clips(backbone, requests, settings, SEQUENTIAL)
    assert counts == [1] * 4 + [3] * 4


def test_a_mask_of_the_whole_clip_drops_nothing(backbone):
    request = wide_request()
    request = dataclasses.replace(request, mask=torch.ones_like(request.mask))
    dropping = latents_of(backbone, [request], dropped(FREE))
    anchored = config("plain", background_anchor="latents")
    plain = latents_of(backbone, [request], anchored)
    torch.testing.assert_close(dropping, plain, atol=1e-4, rtol=1e-4)


def test_a_family_that_cannot_pack_is_refused(backbone):
    with pytest.raises(ValueError, match="cannot drop the background yet; take a method that"):
        edit_clips(Unpacked(backbone), [wide_request()], dropped(KVLockConfig(lock=None)))
