"""The built-in world's oracle: which object a clip shows."""

import dataclasses

import numpy as np
import pytest
import torch

from kvlock.shapes.answers import NOTHING, dominant_colour, is_right, nearest_mode, wanted_mode
from kvlock.shapes.render import render_scene
from kvlock.shapes.scene import random_edit, random_scene

SIZE = (9, 96, 96)


def _rendered(scene, size=SIZE):
    return torch.from_numpy(render_scene(scene, *size))


def test_the_true_clip_is_classified_as_itself_and_the_source_is_not():
    for seed in range(5):
        edit = random_edit(seed)
        truth, source = _rendered(edit.target), _rendered(edit.source)
        noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 25, truth.shape))
        noisy = (truth + noise).clamp(0, 255).to(torch.uint8)
        subject = edit.target.shapes[0] if edit.kind != "remove" else None
        assert wanted_mode(edit) == ((subject.kind, subject.colour) if subject else NOTHING)
        found = nearest_mode(noisy, seed)
        assert found.mode == wanted_mode(edit) and found.consistency == 1
        assert nearest_mode(truth, seed).distance == 0 and 300 < found.distance < 700
        assert nearest_mode(source, seed).mode != wanted_mode(edit)
        assert is_right(truth, seed) and not is_right(source, seed)


def test_a_mode_that_comes_late_is_not_consistent():
    """Two thirds of the frames show the truth, one third the source."""
    edit = random_edit(0)
    truth, source = _rendered(edit.target), _rendered(edit.source)
    found = nearest_mode(torch.cat([source[:3], truth[3:]]), 0)
    assert found.mode == wanted_mode(edit) and found.consistency == pytest.approx(6 / 9)


def test_dominant_colour_of_rendered_shapes():
    scenes = [dataclasses.replace(s, shapes=s.shapes[:1]) for s in map(random_scene, range(40))]
    found = [dominant_colour(_rendered(s, (3, 96, 96))) for s in scenes]
    right = [colour == s.shapes[0].colour for colour, s in zip(found, scenes)]
    assert np.mean(right) > 0.95
