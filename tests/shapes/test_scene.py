"""The built-in world: scenes, rendering, and the answer that is known."""

import dataclasses

import numpy as np
import pytest

from kvlock.shapes import checkpoint
from kvlock.shapes.render import render_mask, render_scene, signed_distance
from kvlock.shapes.scene import (
    COLOURS,
    EDITS,
    KINDS,
    PATTERNS,
    add,
    random_edit,
    random_scene,
    recolour,
    remove,
    replace_shape,
    reshape,
)

SIZE = (9, 96, 96)


def test_a_seed_is_a_scene_and_other_seeds_are_others():
    assert random_scene(3) == random_scene(3)
    assert np.array_equal(
        render_scene(random_scene(3), *SIZE), render_scene(random_scene(3), *SIZE)
    )
    scenes = [random_scene(s) for s in range(400)]
    assert len(set(scenes)) == 400
    assert {s.shapes[0].kind for s in scenes} == set(KINDS) and len(KINDS) >= 5
    assert {s.shapes[0].colour for s in scenes} == set(COLOURS) and len(COLOURS) >= 8
    assert {s.background.pattern for s in scenes} == set(PATTERNS)
    assert {len(s.shapes) for s in scenes} == {1, 2}
    assert {s.background.pan == (0.0, 0.0) for s in scenes} == {True, False}


@pytest.mark.parametrize("kind", EDITS)
def test_source_and_truth_differ_inside_the_mask_only(kind):
    for seed in range(6):
        edit = random_edit(seed, kind)
        source, truth = render_scene(edit.source, *SIZE), render_scene(edit.target, *SIZE)
        mask = render_mask(edit, *SIZE)
        assert mask.dtype == bool and mask.any(axis=(1, 2)).all() and not mask.all()
        assert np.array_equal(source[~mask], truth[~mask])
        assert not np.array_equal(source[mask], truth[mask])


def test_edits_change_what_they_say():
    scene = random_scene(0)
    first, others = scene.shapes[0], scene.shapes[1:]
    assert recolour(scene, "green").target.shapes[0] == dataclasses.replace(first, colour="green")
    assert reshape(scene, "star").target.shapes[0] == dataclasses.replace(first, kind="star")
    assert replace_shape(scene, "star", "green").target.shapes[1:] == others
    assert remove(scene).target.shapes == others and add(scene).source.shapes == others
    assert "green" in recolour(scene, "green").prompt
    assert dataclasses.replace(scene, shapes=()).prompt == "an empty background"


def test_the_mask_does_not_tell_the_answer():
    scene = random_scene(5)
    masks = [render_mask(reshape(scene, kind), *SIZE) for kind in KINDS]
    assert all(np.array_equal(m, masks[0]) for m in masks)


def test_prompts_are_words_of_the_tokenizer():
    unknown = checkpoint.VOCABULARY.index("<unk>")
    prompts = [random_edit(s).prompt for s in range(200)] + ["an empty background"]
    for ids in checkpoint.build_tokenizer()(prompts).input_ids:
        assert unknown not in ids and len(ids) <= checkpoint.TEXT_LENGTH


def test_a_scene_is_the_same_at_another_size():
    scene = random_scene(1)
    small, large = (render_scene(scene, 5, n, n).astype(float) for n in (48, 96))
    assert np.abs(large.reshape(5, 48, 2, 48, 2, 3).mean((2, 4)) - small).mean() < 3


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_lie_in_their_disc(kind):
    u, v = np.meshgrid(np.linspace(-1.5, 1.5, 151), np.linspace(-1.5, 1.5, 151))
    inside = signed_distance(kind, u, v) < 0
    assert 0.1 < inside.mean() and not inside[np.hypot(u, v) > 1.001].any()


def test_unknown_edit_and_kind_are_named():
    with pytest.raises(ValueError, match="'rotate' is unknown"):
        random_edit(0, "rotate")
    with pytest.raises(ValueError, match="'hexagon' is unknown"):
        signed_distance("hexagon", np.zeros(1), np.zeros(1))
