"""A clip of any size through the core and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kvlock.backbones.wan_vace import WanVACEBackbone

import kvlock
from kvlock.editing import background_report, fit_of
from support import tiny


@pytest.fixture(scope="module")
def backbone():
    return WanVACEBackbone(tiny.vace_pipe(), 16)


def make_request(frames=6, height=50, width=70):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(
        0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8
    )
    mask = torch.zeros(frames, height, width, dtype=torch.bool)
    mask[:, 10:20, 10:30] = True
    return kvlock.EditRequest(video, mask, "a red cat")


def test_the_result_has_the_clips_own_size_and_a_record_a_step(backbone):
    told = []
    config = kvlock.KVLockConfig(num_inference_steps=3)
    result = kvlock.edit(backbone, make_request(), config, on_step=told.append)
    assert result.video.shape == (6, 50, 70, 3) and result.video.dtype == torch.uint8
    assert tuple(told) == result.trace and len(told) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(mask=torch.ones(4, 20, 20, dtype=torch.bool)), "expected bool \\(6, 50, 70\\)"),
        (dict(mask=torch.ones(9, 50, 70, dtype=torch.bool)), "expected bool \\(6, 50, 70\\)"),
        (dict(video=torch.rand(6, 50, 70, 3)), "expected uint8"),
    ],
)
def test_bad_requests_are_refused_before_they_are_fitted(backbone, change, message):
    with pytest.raises(ValueError, match=message):
        kvlock.edit(
            backbone, replace(make_request(), **change), kvlock.KVLockConfig(num_inference_steps=1)
        )


def test_a_size_beyond_the_models_positions_is_refused(backbone):
    with pytest.raises(ValueError, match="whose sides end at 512"):
        fit_of(backbone, make_request(), (512, 2048), None)


def test_the_report_compares_with_the_source_and_the_vae_alone(backbone):
    request = make_request()
    fit = fit_of(backbone, request, None, None)
    exact = background_report(backbone, request, request.video.numpy(), fit)
    assert exact.psnr == 100 and exact.ssim == pytest.approx(1) and exact.psnr_ceiling < 40
    shifted = background_report(backbone, request, np.roll(request.video.numpy(), 1, axis=2), fit)
    assert shifted.psnr < 20 and shifted.psnr_ceiling == exact.psnr_ceiling


def test_default_config_lets_the_user_win():
    assert kvlock.default_config("shapes", "rigid", num_inference_steps=7).num_inference_steps == 7
    assert kvlock.default_config("somebody/else", "rigid").fusion_ratio == 1.0
