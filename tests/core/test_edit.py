"""The loop's identities, on tiny random Wan and Wan-VACE of the real classes."""

import dataclasses

import numpy as np
import pytest
import torch

import tiny
from kvlock.backbones.wan import WanBackbone
from kvlock.backbones.wan_vace import WanVACEBackbone
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import edit_clips
from kvlock.core.trace import NonFiniteError
from kvlock.core.types import EditRequest
from kvlock.methods.table import method_config

STEPS = 6
TEXT_LENGTH = 16
BACKBONES = {"wan": (WanBackbone, tiny.wan_pipe), "wan-vace": (WanVACEBackbone, tiny.vace_pipe)}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    cls, pipe = BACKBONES[request.param]
    return cls(pipe(), TEXT_LENGTH)


def make_request(seed=0, prompt="a red cat", source_prompt="a dog", everywhere=False):
    generator = torch.Generator().manual_seed(100 + seed)
    video = torch.randint(0, 256, (9, 32, 32, 3), generator=generator, dtype=torch.uint8)
    mask = torch.full((9, 32, 32), everywhere)
    mask[:, 8:20, 2 + 4 * seed : 14 + 4 * seed] = True
    return EditRequest(video, mask, prompt, source_prompt, seed=seed)


def config(method="kv-lock", **fields):
    return method_config(method, {}, dict(num_inference_steps=STEPS, lock_steps=4, threshold=0.02) | fields)


def latents_of(backbone, requests, config):
    """The final latents, before the decoder rounds them to bytes."""
    kept = {}
    decode = backbone.decode_video
    backbone.decode_video = lambda latents: kept.setdefault("latents", latents) is None or decode(latents)
    try:
        edit_clips(backbone, requests, config)
    finally:
        del backbone.decode_video
    return kept["latents"]


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
    request = make_request()
    plain = config("plain", rows="sequential", background_anchor="none")
    assert torch.equal(latents_of(backbone, [request], plain), stock_output(backbone, request, "latent"))
    frames = stock_output(backbone, request)[0].permute(0, 2, 3, 1)
    result = edit_clips(backbone, [request], plain)[0]
    assert torch.equal(result.video, (frames * 255).round().to(torch.uint8))


def test_without_lock_in_one_batch_within_1e_4(backbone):
    request = make_request()
    plain = config("plain", rows="batched", background_anchor="none")
    expected = stock_output(backbone, request, "latent")
    torch.testing.assert_close(latents_of(backbone, [request], plain), expected, atol=1e-4, rtol=0)


def test_alpha_zero_with_the_source_run_beside_is_the_stock_output_too(backbone):
    """Not the shortcut that leaves the source out: the tap is in place and blends with weight 0."""
    request = make_request()
    calm = config("kv-only", rows="sequential", background_anchor="none", threshold=1e30)
    result = latents_of(backbone, [request], calm)
    torch.testing.assert_close(result, stock_output(backbone, request, "latent"), atol=1e-6, rtol=0)


def test_both_ways_of_running_the_rows_agree(backbone):
    requests = [make_request(0), make_request(1)]
    batched, sequential = (latents_of(backbone, requests, config(rows=rows)) for rows in ("batched", "sequential"))
    torch.testing.assert_close(batched, sequential, atol=1e-4, rtol=0)


def test_the_lock_has_an_effect_and_the_trace_says_so(backbone):
    request = make_request()
    free, locked = (latents_of(backbone, [request], config(m, background_anchor="none")) for m in ("plain", "rigid"))
    assert (free - locked).abs().max() > 1e-3
    trace = edit_clips(backbone, [request], config())[0].trace
    assert [r.step for r in trace] == list(range(STEPS))
    assert trace[0].variance is None and trace[1].variance is None and trace[2].variance > 0
    assert all(r.fusion_ratio == 0 and r.guidance_scale == 5 for r in trace[:2])
    for record in trace[2:]:
        assert record.fusion_ratio == pytest.approx(min(record.variance / 0.02, 1))
        assert record.guidance_scale == pytest.approx(5 * min(max(record.variance / 0.02, 1), 2))
    assert [r.sigma for r in trace] == sorted((r.sigma for r in trace), reverse=True)


def test_an_all_foreground_mask_is_plain_sampling(backbone):
    """No token is background, so nothing can be locked or anchored."""
    request = make_request(everywhere=True)
    fields = dict(rows="sequential", adaptive_guidance=False, unconditional_scale=False, fusion_ratio=1.0)
    locked = latents_of(backbone, [request], config(**fields))
    plain = latents_of(backbone, [request], config("plain", rows="sequential", background_anchor="auto"))
    assert torch.equal(locked, plain)


def test_locking_a_clip_to_itself_is_the_identity(backbone):
    """With the source branch's own latents, prompt and control as the edit's, alpha = 1 changes nothing."""
    request = make_request(prompt="a dog", source_prompt="a dog")
    fields = dict(guidance_scale=1.0, num_inference_steps=1, lock_steps=1, background_anchor="none")
    locked = latents_of(backbone, [request], config("rigid", **fields))
    plain = latents_of(backbone, [request], config("plain", **fields))
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


def test_auto_anchors_text_to_video_only():
    request = make_request()
    for name, (cls, pipe) in BACKBONES.items():
        backbone = cls(pipe(), TEXT_LENGTH)
        auto = latents_of(backbone, [request], config())
        same = config(background_anchor="latents" if name == "wan" else "none")
        assert torch.equal(auto, latents_of(backbone, [request], same))


def test_strength_starts_from_the_noised_source(backbone):
    request = make_request()
    half = edit_clips(backbone, [request], config(strength=0.5))[0]
    assert [r.step for r in half.trace] == [3, 4, 5]
    near, far = (
        latents_of(backbone, [request], config("plain", strength=s, background_anchor="none")) for s in (0.17, 1.0)
    )
    source = backbone.encode_video(request.video[None])
    assert (near - source).abs().mean() < (far - source).abs().mean()


def test_guidance_off_runs_no_unconditional_forward(backbone):
    rows = []
    predict = backbone.predict
    backbone.predict = lambda latents, *rest: rows.append(len(latents)) or predict(latents, *rest)
    result = edit_clips(backbone, [make_request()], config(guidance_scale=1.0, num_inference_steps=4, lock_steps=0.5))[
        0
    ]
    assert rows == [1, 1, 2, 2]
    assert all(r.unconditional_scale is None for r in result.trace)


@pytest.mark.parametrize("rows", ["batched", "sequential"])
def test_the_source_runs_in_the_lock_steps_only(backbone, rows):
    forwards = []
    predict = backbone.predict
    backbone.predict = lambda latents, *rest: forwards.append(len(latents)) or predict(latents, *rest)
    packed = backbone.predict_packed
    backbone.predict_packed = lambda rows, *rest: forwards.append(len(rows)) or packed(rows, *rest)
    edit_clips(backbone, [make_request()], config(rows=rows))
    assert sum(forwards) == 2 * STEPS + 4


def test_detection_is_inside_the_mask_or_everywhere(backbone):
    """The first variance is measured before anything is locked, so both runs measure the same predictions."""
    small, everywhere = (
        edit_clips(backbone, [make_request()], config(detection=d))[0].trace[2].variance for d in ("local", "global")
    )
    full = dataclasses.replace(make_request(), mask=torch.ones(9, 32, 32, dtype=torch.bool))
    if isinstance(backbone, WanBackbone):  # without a control or an anchor, the mask only chooses where to look
        free = config(background_anchor="none")
        assert edit_clips(backbone, [full], free)[0].trace[2].variance == pytest.approx(
            edit_clips(backbone, [make_request()], dataclasses.replace(free, detection="global"))[0].trace[2].variance
        )
    assert small != everywhere


@pytest.mark.parametrize("window", [2, 3])
def test_the_window_forgets(backbone, window):
    short = edit_clips(backbone, [make_request()], config("plain", window=window))[0].trace
    long = edit_clips(backbone, [make_request()], config("plain", window=10))[0].trace
    assert [s.variance == n.variance for s, n in zip(short[2:], long[2:])] == [
        step <= window for step in range(2, STEPS)
    ]


def test_processors_are_put_back_also_after_an_exception(backbone):
    before = [s.module.processor for s in backbone.attention_sites()]

    def stop(records):
        if records[0].step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_clips(backbone, [make_request()], config(), stop)
    assert all(s.module.processor is p for s, p in zip(backbone.attention_sites(), before))


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


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(mask=torch.zeros(9, 32, 32, dtype=torch.bool)), "mask is empty"),
        (dict(mask=torch.ones(9, 32, 16, dtype=torch.bool)), "expected bool \\(9, 32, 32\\)"),
        (dict(mask=torch.ones(9, 32, 32)), "mask is torch.float32"),
        (dict(video=torch.zeros(9, 32, 32, 3)), "expected uint8"),
        (dict(prompt=" "), "prompt is empty"),
    ],
)
def test_bad_requests_are_named(backbone, change, message):
    with pytest.raises(ValueError, match=message):
        edit_clips(backbone, [dataclasses.replace(make_request(), **change)], KVLockConfig())


def test_clips_of_different_sizes_are_refused(backbone):
    small = make_request(1)
    small = dataclasses.replace(small, video=small.video[:5], mask=small.mask[:5])
    with pytest.raises(ValueError, match="same size"):
        edit_clips(backbone, [make_request(), small], config())
