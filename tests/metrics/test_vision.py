"""The arithmetic of metrics by CLIP and DINO, on tiny random networks of the real classes."""

import numpy as np
import pytest
import torch
from torch import nn

from kvlock.metrics import vision
from support.networks import clip_model, dino, randn, random_clip


def test_consistency_is_the_mean_over_later_frames():
    features = randn(5, 7)
    unit = [f / f.norm() for f in features]
    slow = [
        (max(0, float(unit[t] @ unit[0])) + max(0, float(unit[t] @ unit[t - 1]))) / 2
        for t in range(1, 5)
    ]
    assert vision.frame_consistency(features) == pytest.approx(np.mean(slow), rel=1e-5)
    assert vision.frame_consistency(torch.ones(3, 4)) == pytest.approx(1)
    assert np.isnan(vision.frame_consistency(features[:1]))


def test_alignment_and_aesthetics():
    images, text = randn(4, 6), randn(1, 6, seed=1)
    slow = [100 * max(0.0, float(i @ text[0] / (i.norm() * text[0].norm()))) for i in images]
    assert vision.text_alignment(images, text) == pytest.approx(np.mean(slow), rel=1e-5)
    assert vision.text_alignment(text, text) == pytest.approx(100)
    assert vision.text_alignment(-text, text) == 0
    head = nn.Linear(6, 1)
    slow = [(head.weight[0] @ (i / i.norm()) + head.bias[0]).item() / 10 for i in images]
    assert vision.aesthetic_quality(images, head) == pytest.approx(np.mean(slow), rel=1e-4)


def test_regions_are_the_masks_boxes():
    frames, mask = random_clip(), torch.zeros(3, 40, 48, dtype=torch.bool)
    mask[0, 5, 7], mask[0, 9, 3], mask[2, 39, 47] = True, True, True
    first, second = vision.mask_crops(frames, mask)
    assert torch.equal(first[0], frames[0, 5:10, 3:8])
    assert torch.equal(second[0], frames[2, 39:, 47:])


def _normal(frames: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return (frames.permute(0, 3, 1, 2) / 255 - mean) / std


def test_what_the_networks_are_shown():
    """At the model's size nothing is resized; DINO sees wide frames whole, CLIP their middle."""
    clip, dinos, frames = clip_model(), dino(), random_clip(20, 32, 32)
    shown = _normal(frames, vision.CLIP_MEAN, vision.CLIP_STD)
    expected = clip.visual_projection(clip.vision_model(shown).pooler_output)
    torch.testing.assert_close(vision.clip_features(clip, frames), expected, rtol=1e-4, atol=1e-5)
    shown = _normal(frames, vision.DINO_MEAN, vision.DINO_STD)
    expected = dinos(shown).last_hidden_state[:, 0]
    torch.testing.assert_close(vision.dino_features(dinos, frames), expected, rtol=1e-4, atol=1e-5)
    sides = [random_clip(2, 32, 16, seed=seed) for seed in (1, 2)]
    wide = torch.cat([sides[0], frames[:2], sides[1]], dim=2)
    features = vision.clip_features(clip, wide)
    torch.testing.assert_close(features, vision.clip_features(clip, frames[:2]))
    seen = vision.dino_features(dinos, wide), vision.dino_features(dinos, frames[:2])
    assert not torch.allclose(*seen)
