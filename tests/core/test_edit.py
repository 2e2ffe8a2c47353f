"""The loop's identities, on tiny random Wan and Wan-VACE of the real classes."""

import dataclasses

import numpy as np
import pytest
import torch

from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.core import edit as kv_lock
from kvlock.core.trace import NonFiniteError
from kvlock.methods.edit import edit_clips
from support.edits import (
    BACKBONES,
    BATCHED,
    EXECUTIONS,
    SEQUENTIAL,
    STEPS,
    TEXT_LENGTH,
    config,
    counted,
    latents_of,
    make_backbone,
    make_request,
)


def stock_output(backbone, request, output_type="pt"):
    """What diffusers' own pipeline makes of the same seed."""
    extra = {}
    if isinstance(backbone, WanVACEBackbone):
        video = request.video.numpy() / np.float32(255)
        video[request.mask.numpy()] = 0.5
        mask = np.repeat(request.mask.numpy()[..., None], 3, axis=-1).astype(np.float32)
        extra = dict(video=[video], mask=[mask])
    return backbone.pipe(
        prompt=request.prompt,
        negative_prompt="",
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(request.seed),
        output_type=output_type,
        max_sequence_length=TEXT_LENGTH,
        **extra,
    ).frames


def test_without_lock_the_stock_pipelines_own_output_to_the_bit(backbone):
    request, plain = make_request(), config("plain", background_anchor="none")
    latents = latents_of(backbone, [request], plain, SEQUENTIAL)
    assert torch.equal(latents, stock_output(backbone, request, "latent"))
    frames = stock_output(backbone, request)[0].permute(0, 2, 3, 1)
    result = edit_clips(backbone, [request], plain, SEQUENTIAL)[0]
    assert torch.equal(result.video, (frames * 255).round().to(torch.uint8))


def test_without_lock_in_one_batch_within_1e_4(backbone):
    request, plain = make_request(), config("plain", background_anchor="none")
    expected = stock_output(backbone, request, "latent")
    result = latents_of(backbone, [request], plain, BATCHED)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_alpha_zero_with_the_source_run_beside_is_the_stock_output_too(backbone):
    """Not the shortcut that leaves the source out: the tap is attached and blends with weight 0."""
    request = make_request()
    calm = config("fixed-0.5", background_anchor="none", fusion_ratio=1e-30)
    result = latents_of(backbone, [request], calm, SEQUENTIAL)
    torch.testing.assert_close(result, stock_output(backbone, request, "latent"), atol=1e-6, rtol=0)


def test_the_lock_has_an_effect_and_the_trace_says_so(backbone):
    request = make_request()
    free, locked = (
        latents_of(backbone, [request], config(m, background_anchor="none"))
        for m in ("plain", "rigid")
    )
    assert (free - locked).abs().max() > 1e-3
    trace = edit_clips(backbone, [request], config())[0].trace
    assert [r.step for r in trace] == list(range(STEPS))
    assert trace[0].variance is None and trace[1].variance is None and trace[2].variance > 0
    assert all(r.fusion_ratio == 0 and r.guidance_scale == 5 for r in trace[:2])
    for record in trace[2:]:
        assert record.fusion_ratio == pytest.approx(min(record.variance / 0.02, 1))
        assert record.guidance_scale == pytest.approx(5 * min(max(record.variance / 0.02, 1), 2))
    assert [r.sigma for r in trace] == sorted((r.sigma for r in trace), reverse=True)


def test_the_core_alone_is_what_every_method_runs(backbone):
    requests = [make_request()]
    alone = kv_lock.edit_clips(backbone, requests, config())[0]
    result = edit_clips(backbone, requests, config())[0]
    assert torch.equal(alone.video, result.video) and alone.trace == result.trace


def test_an_all_foreground_mask_is_plain_sampling(backbone):
    """No token is background, so nothing can be locked or anchored."""
    request = make_request(everywhere=True)
    locked = latents_of(backbone, [request], config("rigid"), SEQUENTIAL)
    plain = latents_of(backbone, [request], config("plain", background_anchor="auto"), SEQUENTIAL)
    assert torch.equal(locked, plain)


def test_locking_a_clip_to_itself_is_the_identity(backbone):
    """With the source's own latents, prompt and control, alpha = 1 changes nothing."""
    request = make_request(prompt="a dog", source_prompt="a dog")
    options = dict(guidance_scale=1.0, num_inference_steps=1, lock_steps=1)
    locked = latents_of(backbone, [request], config("rigid", background_anchor="none", **options))
    plain = latents_of(backbone, [request], config("plain", background_anchor="none", **options))
    torch.testing.assert_close(locked, plain, atol=1e-5, rtol=0)


def test_same_seed_same_bytes_and_another_seed_other_bytes(backbone):
    first, again = (edit_clips(backbone, [make_request()], config())[0] for _ in range(2))
    other = edit_clips(backbone, [dataclasses.replace(make_request(), seed=9)], config())[0]
    assert torch.equal(first.video, again.video) and first.trace == again.trace
    assert not torch.equal(first.video, other.video)


def test_a_clip_does_not_depend_on_the_batch(backbone):
    requests = [make_request(0), make_request(1, prompt="a blue dog"), make_request(2)]
    together = latents_of(backbone, requests, config())
    for index, request in enumerate(requests):
        alone = latents_of(backbone, [request], config())
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=0)


def test_anchored_background_latents_end_as_the_source(backbone):
    request = make_request()
    latents = latents_of(backbone, [request], config(background_anchor="latents"))
    source = backbone.encode_video(request.video[None])
    outside = torch.ones(1, 16, 3, 4, 4, dtype=torch.bool)
    outside[..., 1:3, 0:2] = False
    assert torch.equal(latents[outside], source[outside])
    assert not torch.allclose(latents[~outside], source[~outside], atol=1e-2)


@pytest.mark.parametrize("name", BACKBONES)
def test_auto_anchors_text_to_video_only(name):
    backbone, request = make_backbone(name), make_request()
    auto = latents_of(backbone, [request], config())
    same = config(background_anchor="latents" if name == "wan" else "none")
    assert torch.equal(auto, latents_of(backbone, [request], same))


def test_strength_starts_from_the_noised_source(backbone):
    request = make_request()
    half = edit_clips(backbone, [request], config(strength=0.5))[0]
    assert [r.step for r in half.trace] == [3, 4, 5]
    near, far = (
        latents_of(backbone, [request], config("plain", strength=s, background_anchor="none"))
        for s in (0.17, 1.0)
    )
    source = backbone.encode_video(request.video[None])
    assert (near - source).abs().mean() < (far - source).abs().mean()


def test_guidance_off_runs_no_unconditional_forward(backbone):
    counts = counted(backbone)
    settings = config(guidance_scale=1.0, num_inference_steps=4, lock_steps=0.5)
    result = edit_clips(backbone, [make_request()], settings)[0]
    assert counts == [1, 1, 2, 2]
    assert all(r.unconditional_scale is None for r in result.trace)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.branches)
def test_the_source_runs_in_the_lock_steps_only(backbone, execution):
    counts = counted(backbone)
    edit_clips(backbone, [make_request()], config(), execution)
    assert sum(counts) == 2 * STEPS + 4


def test_outside_the_guidance_interval_the_conditional_runs_alone(backbone):
    levels = backbone.sampler(STEPS, multistep=False).sigmas
    settings = config("plain", guidance_interval=(levels[4], levels[1]))
    counts = counted(backbone)
    result = edit_clips(backbone, [make_request()], settings)[0]
    assert [r.guidance_scale for r in result.trace] == [1.0, 5.0, 5.0, 5.0, 5.0, 1.0]
    assert counts == [1, 2, 2, 2, 2, 1]
    never = config("plain", guidance_interval=(0.0, 0.0))
    off = config("plain", guidance_scale=1.0)
    assert torch.equal(*(latents_of(backbone, [make_request()], c) for c in (never, off)))


def test_detection_is_inside_the_mask_or_everywhere(backbone):
    """The first variance comes before a lock, so both runs have the same predictions."""
    free = dict(background_anchor="none")

    def first_variance(request, **options):
        return edit_clips(backbone, [request], config(**options))[0].trace[2].variance

    small, everywhere = (first_variance(make_request(), detection=d) for d in ("local", "global"))
    assert small != everywhere
    full = dataclasses.replace(make_request(), mask=torch.ones(9, 32, 32, dtype=torch.bool))
    if not isinstance(backbone, WanVACEBackbone):  # where the mask only chooses where to look
        expected = first_variance(make_request(), detection="global", **free)
        assert first_variance(full, **free) == pytest.approx(expected)


@pytest.mark.parametrize("window", [2, 3])
def test_the_window_forgets(backbone, window):
    short, long = (
        edit_clips(backbone, [make_request()], config("plain", window=w))[0].trace
        for w in (window, 10)
    )
    assert [s.variance == n.variance for s, n in zip(short[2:], long[2:])] == [
        step <= window for step in range(2, STEPS)
    ]


@torch.no_grad()
def test_latents_that_stop_being_finite_stop_the_edit_with_its_step(backbone):
    predict = backbone.predict
    calls = []

    def poisoned(latents, *rest):
        calls.append(1)
        return predict(latents, *rest) * (float("nan") if len(calls) == 3 else 1.0)

    backbone.predict = poisoned
    with pytest.raises(NonFiniteError, match="no longer finite after step 2"):
        edit_clips(backbone, [make_request()], config())
