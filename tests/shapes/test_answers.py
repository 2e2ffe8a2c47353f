"""The built-in world's oracle: which object a clip shows."""

import dataclasses

import numpy as np
import pytest
import torch

from kvlock.shapes.answers import (
    NOTHING,
    dominant_colour,
    is_right,
    nearest_mode,
    outline_change,
    wanted_mode,
)
from kvlock.shapes.render import render_scene
from kvlock.shapes.scene import COLOURS, random_edit, random_scene

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


def _wobbling(edit, by):
    """The target, its subject larger and smaller in turn."""
    subject, *rest = edit.target.shapes
    sizes = (dataclasses.replace(subject, radius=subject.radius * r) for r in (1 - by, 1 + by))
    small, large = (_rendered(dataclasses.replace(edit.target, shapes=(s, *rest))) for s in sizes)
    return torch.stack([(small, large)[f % 2][f] for f in range(len(small))])


def _slow_outline_change(clip, edit, kind, colour):
    """Pixel by pixel: the two outlines, each carried back along the path by bilinear weights."""
    subject = dataclasses.replace(edit.disc, kind=kind, colour=colour)
    rest = edit.target.shapes[1:]
    true = render_scene(dataclasses.replace(edit.target, shapes=(subject, *rest)), *SIZE)
    behind = render_scene(dataclasses.replace(edit.target, shapes=rest), *SIZE).astype(float)
    return _slow_changes(clip.numpy(), behind, edit.disc, colour) / _slow_changes(
        true, behind, edit.disc, colour
    )


def _slow_changes(clip, behind, disc, colour):
    frames, height, width = SIZE
    total, before = 0.0, None
    for frame in range(frames):
        t = frame / (frames - 1)
        (ax, ay), (bx, by), (cx, cy) = disc.path
        left, right = (
            (ax + t * (bx - ax), ay + t * (by - ay)),
            (bx + t * (cx - bx), by + t * (cy - by)),
        )
        x, y = (96 * (p + t * (q - p)) for p, q in zip(left, right))
        inside = {}
        for i in range(height):
            for j in range(width):
                pixel = clip[frame, i, j].astype(float)
                if np.hypot(j + 0.5 - x, i + 0.5 - y) < 96 * disc.radius + 1:
                    own = sum((pixel[c] - COLOURS[colour][c]) ** 2 for c in range(3))
                    inside[i, j] = own < sum((pixel - behind[frame, i, j]) ** 2)
        laid = {}
        for (i, j), shown in inside.items():
            down, across = i + 48 - y, j + 48 - x  # where the pixel lands, between four others
            low, first = int(np.floor(down)), int(np.floor(across))
            for a in (low, low + 1):
                for b in (first, first + 1):
                    weight = (1 - abs(down - a)) * (1 - abs(across - b))
                    laid[a, b] = laid.get((a, b), 0.0) + weight * shown
        if before is not None:
            total += sum(abs(laid.get(p, 0.0) - before.get(p, 0.0)) for p in {*laid, *before})
        before = laid
    return total


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_the_outlines_change_is_the_slow_one(seed):
    edit = random_edit(seed)
    kind, colour = wanted_mode(edit)
    noise = np.random.default_rng(seed).normal(0, 30, (*SIZE, 3))
    noisy = (_rendered(edit.target) + torch.from_numpy(noise)).clamp(0, 255).to(torch.uint8)
    for clip in (noisy, _wobbling(edit, 0.08)):
        assert nearest_mode(clip, seed).mode == (kind, colour)
        expected = _slow_outline_change(clip, edit, kind, colour)
        assert expected > 1 and outline_change(clip, seed) == pytest.approx(expected, rel=1e-9)


def test_a_steady_object_is_1_be_it_right_or_wrong_and_wobbling_counts():
    edit = random_edit(1)  # reshapes: the source shows another kind, as steadily
    assert outline_change(_rendered(edit.target), 1) == 1
    assert outline_change(_rendered(edit.source), 1) == 1
    little, much = (outline_change(_wobbling(edit, by), 1) for by in (0.03, 0.1))
    assert 1 < little < much and much > 3


def test_without_an_object_there_is_no_outline():
    edit = random_edit(3)  # removes
    assert outline_change(_rendered(edit.target), 3) is None
    edit = random_edit(4)  # adds
    assert outline_change(_rendered(edit.source), 4) is None


def test_dominant_colour_of_rendered_shapes():
    scenes = [dataclasses.replace(s, shapes=s.shapes[:1]) for s in map(random_scene, range(40))]
    found = [dominant_colour(_rendered(s, (3, 96, 96))) for s in scenes]
    right = [colour == s.shapes[0].colour for colour, s in zip(found, scenes)]
    assert np.mean(right) > 0.95
