"""Edits whose background is not computed, against full computations in slow steps."""

import dataclasses

import pytest
import reference
import torch
from kvlock.core.tokens import computed_latents, computed_tokens, token_sets
from kvlock.methods.table import method_config
from test_edit import BACKBONES, STEPS, TEXT_LENGTH, config, latents_of
from torch.utils._python_dispatch import TorchDispatchMode

from kvlock.core.clips import prepare_clips
from kvlock.core.edit import edit_clips
from kvlock.core.mask import token_foreground
from kvlock.core.protocols import TokenRow
from kvlock.core.tap import Tap, attached
from kvlock.core.trace import Trace
from kvlock.core.types import EditRequest
from kvlock.editing import edit_variants

PROMPTS = ("a red cat", "a blue cat", "a blue dog")


def make_request(seed=0):
    """A wide clip: of six columns of tokens two are foreground, one more is its margin, three are background."""
    video = torch.randint(
        0, 256, (9, 32, 96, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    mask = torch.zeros(9, 32, 96, dtype=torch.bool)
    mask[:, 8:20, 4 + 64 * seed : 28 + 64 * seed] = True
    return EditRequest(video, mask, "a red cat", "a dog", seed=seed)


FREE = dict(unconditional_scale=False, adaptive_guidance=False)


@pytest.fixture(params=BACKBONES)
def backbone(request):
    cls, pipe = BACKBONES[request.param]
    return cls(pipe(), TEXT_LENGTH)


class _SlowProcessor:
    """Self-attention over the visible tokens; an edit's background keys and values are the source's of last time."""

    def __init__(self, computed, visible):
        self.computed, self.visible = computed, visible
        self.is_source = False

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None
    ):
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


@torch.no_grad()
def _slow_edit(backbone, request, config):
    """The full computation with alpha = 1 everywhere and the source's latents pasted, one forward a row.

    With APG, and with omega as `fast` has it: 0.85 of omega_0 in the lock steps, 1 outside the interval.
    """
    clips = prepare_clips(backbone, [request])
    sampler = backbone.sampler(config.num_inference_steps, multistep=False)
    computed = computed_tokens(clips.foreground, backbone.patch_size, config.drop_margin)
    sets = token_sets(computed[0], config.background_context)
    visible = torch.zeros(computed.numel(), dtype=torch.bool).index_fill(0, sets.source, True)
    processors = [_SlowProcessor(computed.flatten(), visible) for _ in backbone.attention_sites()]
    own = computed_latents(computed, backbone.patch_size)
    kept = clips.foreground if config.background_anchor == "latents" else own
    every = (
        round(config.source_refresh * STEPS) if config.source_refresh < 1 else config.source_refresh
    )
    for site, processor in zip(backbone.attention_sites(), processors):
        site.module.processor = processor

    def velocity(latents, prompt, step, is_source=False):
        for processor in processors:
            processor.is_source = is_source
        embeds = backbone.encode_prompt([prompt])
        return backbone.predict(latents, sampler.timestep(step)[None], embeds, clips.condition)

    latents, average = clips.start, None
    for step in range(config.num_inference_steps):
        sigma = sampler.sigmas[step]
        if step % every == 0:
            velocity(
                sampler.add_noise(clips.source, clips.noise, step),
                request.source_prompt,
                step,
                is_source=True,
            )

        def denoised(prompt, step=step, sigma=sigma, latents=latents):
            return torch.where(
                own[:, None], latents - sigma * velocity(latents, prompt, step), clips.source
            )

        clean = denoised(request.prompt)
        if config.guidance_interval[0] <= sigma <= config.guidance_interval[1]:
            uncond = denoised(request.negative_prompt)
            if config.guidance == "apg" and step >= STEPS - config.lock_steps:
                clean, average = reference.projected(
                    clean[0], uncond[0], 0.85 * config.guidance_scale, average
                )
                clean = clean[None].float()
            else:
                clean = uncond + config.guidance_scale * (clean - uncond)
        latents = sampler.step(latents, (latents - clean) / sigma, step)
        latents = torch.where(
            kept[:, None], latents, sampler.add_noise(clips.source, clips.noise, step + 1)
        )
    return latents


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(drop_margin=0),
        dict(source_refresh=2),
        dict(background_context=0.4, drop_margin=0),
    ],
    ids=["all", "no margin", "refresh 2", "context"],
)
def test_dropping_is_the_full_computation_with_alpha_1_and_pasted_latents(backbone, fields):
    request = make_request()
    settings = config(drop_background="all", background_anchor="none", **FREE, **fields)
    fast = latents_of(backbone, [request], settings)
    torch.testing.assert_close(fast, _slow_edit(backbone, request, settings), atol=2e-5, rtol=1e-4)


def test_fast_is_what_the_slow_steps_give(backbone):
    """The default method: margin computed but not kept, source every 2nd of 6 steps, context, APG in an interval."""
    request, settings = make_request(), config("fast")
    guided = [0.5 <= sigma for sigma in backbone.sampler(STEPS, multistep=False).sigmas[:STEPS]]
    assert 0 < sum(guided) < STEPS and settings.refresh_steps == 2
    fast = latents_of(backbone, [request], settings)
    torch.testing.assert_close(fast, _slow_edit(backbone, request, settings), atol=5e-5, rtol=1e-4)


def test_rotating_heads_in_groups_changes_no_bit(backbone, monkeypatch):
    settings = config(drop_background="all")
    whole = latents_of(backbone, [make_request()], settings)
    monkeypatch.setattr("kvlock.backbones.packing.MANY_TOKENS", 0)
    assert torch.equal(latents_of(backbone, [make_request()], settings), whole)


@torch.no_grad()
def test_packed_rows_of_different_prompts_equal_plain_forwards(backbone):
    clips = prepare_clips(backbone, [make_request()])
    sampler = backbone.sampler(STEPS, multistep=False)
    tokens = torch.arange(token_foreground(clips.foreground, backbone.patch_size).numel())
    texts = [backbone.encode_prompt(["a dog"])[:, :9], backbone.encode_prompt(["a red cat"])]
    rows = [
        TokenRow(latents, text, clips.condition, tokens)
        for latents in (clips.noise, clips.source)
        for text in texts
    ]
    nothing = Tap(torch.zeros(1, len(tokens), dtype=torch.bool))
    with (
        attached(nothing, backbone.attention_sites()),
        nothing.layer_by_layer(torch.ones(1), [0] * 4),
    ):
        packed = backbone.predict_packed(rows, sampler.timestep(2), nothing)
    for row, output in zip(rows, packed):
        plain = backbone.predict(
            row.latents, sampler.timestep(2)[None], row.prompt_embeds, row.condition
        )
        torch.testing.assert_close(output, plain, atol=2e-6, rtol=1e-5)


def test_what_is_dropped_is_the_source_and_s_star_knows_it(backbone):
    """In every branch the velocity of dropped latents is (latents - clean) / sigma: what it predicts is the source."""
    seen = []
    clean = prepare_clips(backbone, [make_request()]).source
    settings = config(drop_background="locked", background_anchor="none", drop_margin=0)
    result = edit_clips(backbone, [make_request()], settings, observe=seen.append)[0]
    own = computed_latents(
        computed_tokens(
            prepare_clips(backbone, [make_request()]).foreground, backbone.patch_size, 0
        ),
        backbone.patch_size,
    )[:, None].expand_as(clean)
    for tensors in seen:
        dropped = tensors.step >= settings.first_lock_step
        for branch in tensors.branches:
            assert torch.allclose(branch[~own], clean[~own], atol=1e-5) == dropped
    assert [r.fusion_ratio for r in result.trace] == [0.0] * 2 + [1.0] * 4
    latents = latents_of(backbone, [make_request()], settings)
    assert torch.equal(latents[~own], clean[~own]) and not torch.allclose(latents[own], clean[own])


def _variants(count=3):
    request = make_request()
    return [
        dataclasses.replace(request, prompt=p, seed=s, background_seed=9)
        for s, p in zip(range(count), PROMPTS)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        dict(drop_background="all"),
        dict(drop_background="all", source_refresh=2),
        dict(fusion_ratio=0.7),
        dict(fusion_ratio=0.7, rows="sequential"),
        dict(source_path="inverted", strength=0.7, fusion_ratio=0.7),
    ],
    ids=["drop", "drop, refresh 2", "lock", "lock, layer by layer", "inverted"],
)
def test_variants_share_the_source_and_are_what_each_is_alone(backbone, fields):
    variants, settings = _variants(), config(background_anchor="latents", **fields)
    rows = _counted(backbone)
    together = latents_of(backbone, variants, settings)
    steps, with_source = STEPS - settings.first_step, 4
    if settings.drop_background == "all":
        with_source = STEPS // settings.source_refresh
    inversion = STEPS + 1 if settings.source_path == "inverted" else 0
    assert sum(rows) == 2 * len(variants) * steps + with_source + inversion
    alone = torch.cat([latents_of(backbone, [variant], settings) for variant in variants])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


@pytest.mark.parametrize("method", ["sdedit", "flowedit", "flowedit-masked"])
def test_the_seed_matters_where_the_start_is_not_noise_alone(backbone, method):
    request = make_request()
    fields = dict(strength=0.5, num_inference_steps=STEPS)
    settings = method_config(method, {}, fields)
    variants = [dataclasses.replace(request, seed=seed, background_seed=0) for seed in (0, 1)]
    first, second = (r.video.int() for r in edit_variants(backbone, variants, settings))
    alone = edit_variants(backbone, variants[1:], settings)[0].video.int()
    assert (first - second).abs().float().mean() > 0.5 and (second - alone).abs().max() <= 1


def test_what_is_held_is_gone_before_the_decoder_runs(backbone):
    taps, extending = [], Tap.extending
    held = []

    def seen(tap, *arguments):
        taps.append(tap)
        return extending(tap, *arguments)

    decode = backbone.decode_video
    backbone.decode_video = lambda latents: held.append(dict(taps[0]._held)) or decode(latents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tap, "extending", seen)
        edit_clips(backbone, [make_request()], config(drop_background="all", source_refresh=2))
    assert taps and held == [{}]


def test_an_exception_in_a_packed_forward_leaves_the_model_as_it_was(backbone):
    transformer = backbone.pipe.transformer
    before = dict(transformer.named_modules())
    broken = transformer.blocks[-1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        edit_clips(backbone, [make_request()], config(drop_background="all"))
    broken.remove()
    assert dict(transformer.named_modules()) == before
    expected = latents_of(
        type(backbone)(BACKBONES[_name_of(backbone)][1](), TEXT_LENGTH), [make_request()], config()
    )
    assert torch.equal(latents_of(backbone, [make_request()], config()), expected)


def _name_of(backbone):
    return next(name for name, (cls, _) in BACKBONES.items() if type(backbone) is cls)


def test_a_variants_seed_draws_the_foregrounds_noise_alone(backbone):
    first, second, _ = (prepare_clips(backbone, [v]) for v in _variants())
    inside = first.foreground[:, None].expand_as(first.start)
    assert torch.equal(first.start[~inside], second.start[~inside])
    assert torch.equal(first.noise, second.noise) and not torch.equal(
        first.start[inside], second.start[inside]
    )
    alone = prepare_clips(backbone, [dataclasses.replace(make_request(), seed=1)])
    assert torch.equal(alone.start[inside], second.start[inside]) and torch.equal(
        alone.start, alone.noise
    )


def test_clips_of_different_masks_are_dropped_together_as_alone(backbone):
    requests, settings = (
        [make_request(0), make_request(1)],
        config(drop_background="locked", source_refresh=2),
    )
    together = latents_of(backbone, requests, settings)
    alone = torch.cat([latents_of(backbone, [r], settings) for r in requests])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_where_the_source_is_held_changes_nothing(backbone):
    settings = config(drop_background="all", source_refresh=3)
    device, host = (
        latents_of(backbone, [make_request()], dataclasses.replace(settings, source_store=s))
        for s in ("device", "host")
    )
    assert torch.equal(device, host)


def test_outside_the_guidance_interval_the_conditional_runs_alone(backbone):
    levels = backbone.sampler(STEPS, multistep=False).sigmas
    settings = config("plain", guidance_interval=(levels[4], levels[1]))
    rows = _counted(backbone)
    result = edit_clips(backbone, [make_request()], settings)[0]
    assert [r.guidance_scale for r in result.trace] == [1.0, 5.0, 5.0, 5.0, 5.0, 1.0]
    assert rows == [1, 2, 2, 2, 2, 1]
    never = config("plain", guidance_interval=(0.0, 0.0))
    off = config("plain", guidance_scale=1.0)
    assert torch.equal(*(latents_of(backbone, [make_request()], c) for c in (never, off)))


@pytest.mark.parametrize(
    "fields", [dict(), dict(drop_background="all", source_refresh=2), dict(rows="sequential")]
)
def test_no_step_waits_for_the_device(backbone, fields, monkeypatch):
    """Between the first forward and the reading of the trace, no tensor's value is asked for."""
    reads, phase = [], ["before"]

    def noted(name):
        method = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: reads.append((phase[0], name)) or method(*args, **kwargs)

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                reads.append((phase[0], str(func)))
            return func(*args, **kwargs or {})

    def then(name, method):
        return lambda *args: phase.__setitem__(0, name) or method(*args)

    for name in ("tolist", "item", "cpu", "numpy", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, noted(name))
    backbone.predict = then("steps", backbone.predict)
    backbone.predict_packed = then("steps", backbone.predict_packed)
    monkeypatch.setattr(Trace, "records", then("after", Trace.records))
    with Reads():
        edit_clips(backbone, [make_request()], config(background_anchor="latents", **fields))
    assert [name for when, name in reads if when == "steps"] == []
    assert {when for when, _ in reads} == {"before", "after"}


def test_the_context_is_near_the_mask_and_spread_over_the_rest():
    computed = torch.zeros(2, 10, 10, dtype=torch.bool)
    computed[:, 2:5, 2:5] = True
    everything, half, nothing = (token_sets(computed, share) for share in (1.0, 0.5, 0.0))
    assert len(everything.source) == 200 and len(everything.context) == 200 - 18
    assert torch.equal(nothing.source, nothing.edit) and len(nothing.context) == 0
    assert len(half.context) == 91 and len(half.source) == 91 + 18
    seen = torch.zeros(200, dtype=torch.bool)
    seen[half.source[half.context]] = True
    seen = seen.view(2, 10, 10)
    assert not (seen & computed).any()
    around = torch.zeros_like(computed)
    around[:, 1:6, 1:6] = True
    assert seen[around & ~computed].all()
    far = seen[:, 7:]
    assert 0.2 < far.float().mean() < 0.5
    assert abs(int(seen[0].sum()) - int(seen[1].sum())) <= 1  # no frame is preferred


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (dict(source_refresh=2), "source_refresh is 2; expected 1 without drop_background"),
        (
            dict(background_context=0.5),
            "background_context is 0.5; expected 1.0 without drop_background",
        ),
        (
            dict(drop_background="all", foreground_ratio=0.1),
            "foreground_ratio is 0.1; expected 0 with drop_background, or a method that does not drop it",
        ),
        (
            dict(drop_background="all", lock_width=2.0),
            "lock_width is 2.0; expected 0 with drop_background",
        ),
        (
            dict(drop_background="locked", fusion_ratio=0.5),
            "fusion_ratio is 0.5; expected 1 with drop_background",
        ),
        (dict(drop_background="some"), "drop_background is 'some'; expected one of"),
        (
            dict(guidance_interval=(0.5, 0.2)),
            "guidance_interval is .* expected a lower and an upper",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**fields)


def _counted(backbone):
    """Rows of each of the backbone's forwards from here on."""
    rows, predict, packed = [], backbone.predict, backbone.predict_packed
    backbone.predict = lambda latents, *rest: rows.append(len(latents)) or predict(latents, *rest)
    backbone.predict_packed = lambda told, *rest: rows.append(len(told)) or packed(told, *rest)
    return rows
