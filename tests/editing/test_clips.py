"""A clip of any size through the core and back."""

from dataclasses import replace

import pytest
import torch

import kvlock
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.editing.clips import (
    background_reports,
    clip_size,
    default_config,
    edit,
    edit_variants,
    fit_of,
)
from kvlock.media.fit import fit_video, unfit_video
from kvlock.methods.options import flat
from support import tiny
from support.edits import make_backbone, short, wide_request


@pytest.fixture(scope="module")
def backbone():
    return WanVACEBackbone(tiny.vace_pipe(), 16)


def make_request(frames=6, height=50, width=70):
    generator = torch.Generator().manual_seed(0)
    size = (frames, height, width, 3)
    video = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    mask = torch.zeros(frames, height, width, dtype=torch.bool)
    mask[:, 10:20, 10:30] = True
    return kvlock.EditRequest(video, mask, "a red cat")


def test_the_result_has_the_clips_own_size_and_a_record_a_step(backbone):
    records = []
    config = kvlock.KVLockConfig(num_inference_steps=3)
    result = edit(backbone, make_request(), config, on_step=records.append)
    assert result.video.shape == (6, 50, 70, 3) and result.video.dtype == torch.uint8
    assert tuple(records) == result.trace and len(records) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(mask=torch.ones(4, 20, 20, dtype=torch.bool)), "expected bool \\(6, 50, 70\\)"),
        (dict(mask=torch.ones(9, 50, 70, dtype=torch.bool)), "expected bool \\(6, 50, 70\\)"),
        (dict(video=torch.rand(6, 50, 70, 3)), "expected uint8"),
    ],
)
def test_bad_requests_are_refused_before_they_are_fitted(backbone, change, message):
    config = kvlock.KVLockConfig(num_inference_steps=1)
    with pytest.raises(ValueError, match=message):
        edit(backbone, replace(make_request(), **change), config)


def test_a_size_beyond_the_models_positions_is_refused(backbone):
    with pytest.raises(ValueError, match="whose sides end at 512; scale it to a smaller size"):
        fit_of(backbone, clip_size(make_request().video), (512, 2048), None)


def test_the_report_compares_with_the_source_and_the_vae_alone(backbone):
    request = make_request()
    fit = fit_of(backbone, clip_size(request.video), None, None)
    with torch.no_grad():
        latents = backbone.encode_video(fit_video(request.video, fit)[None])
        ceiling = unfit_video(backbone.decode_video(latents)[0], fit)
    edited = [request.video, request.video.roll(1, dims=2)]
    exact, shifted = background_reports(request.video, request.mask, edited, ceiling)
    assert exact.psnr == 100 and exact.ssim == pytest.approx(1) and exact.psnr_ceiling < 40
    assert shifted.psnr < 20 and shifted.psnr_ceiling == exact.psnr_ceiling


@pytest.mark.parametrize("method", ["sdedit", "flowedit", "flowedit-masked"])
def test_variants_differ_by_their_seeds_where_the_start_is_not_noise_alone(method):
    backbone, settings, request = make_backbone("wan"), short(method, strength=0.5), wide_request()
    variants = [replace(request, seed=seed, background_seed=0) for seed in (0, 1)]
    first, second = (r.video.int() for r in edit_variants(backbone, variants, settings))
    alone = edit_variants(backbone, variants[1:], settings)[0].video.int()
    assert (first - second).abs().float().mean() > 0.5 and (second - alone).abs().max() <= 1


def test_variants_of_two_clips_are_refused(backbone):
    config, request = kvlock.KVLockConfig(num_inference_steps=1), make_request()
    other = replace(request, video=request.video.clone())
    with pytest.raises(ValueError, match="give all requests the same video and mask"):
        edit_variants(backbone, [request, other], config)


def test_default_config_lets_the_user_win(tmp_path):
    assert default_config("shapes", "rigid", num_inference_steps=7).num_inference_steps == 7
    tiny.vace_pipe().save_pretrained(tmp_path / "model")
    assert default_config(str(tmp_path / "model"), "rigid").lock.fusion_ratio == 1.0


def test_the_built_in_models_calibration_is_for_the_methods_that_need_it():
    assert "usual" not in flat(default_config("shapes"))
    assert len(flat(default_config("shapes", "calibrated"))["usual"]) == 28
