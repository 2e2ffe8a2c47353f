"""The built-in world: scenes, rendering, and the answer that is known."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from kvlock.bench.modes import NOTHING, nearest_mode, wanted_mode
from kvlock.bench.scenes import render_scenes
from kvlock.bench.shapes_evaluation import dominant_colour, score, summary
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
    assert np.array_equal(render_scene(random_scene(3), *SIZE), render_scene(random_scene(3), *SIZE))
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


def test_the_true_clip_is_classified_as_itself_and_the_source_is_not():
    for seed in range(5):
        edit = random_edit(seed)
        truth, source = render_scene(edit.target, *SIZE), render_scene(edit.source, *SIZE)
        noisy = np.clip(truth + np.random.default_rng(seed).normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
        subject = edit.target.shapes[0] if edit.kind != "remove" else None
        assert wanted_mode(edit) == ((subject.kind, subject.colour) if subject else NOTHING)
        found = nearest_mode(noisy, seed)
        assert found.mode == wanted_mode(edit) and found.consistency == 1
        assert nearest_mode(truth, seed).distance == 0 and 300 < found.distance < 700
        assert nearest_mode(source, seed).mode != wanted_mode(edit)


def test_a_mode_that_comes_late_is_not_consistent():
    """Two thirds of the frames show the truth, one third the source."""
    edit = random_edit(0)
    truth, source = render_scene(edit.target, *SIZE), render_scene(edit.source, *SIZE)
    found = nearest_mode(np.concatenate([source[:3], truth[3:]]), 0)
    assert found.mode == wanted_mode(edit) and found.consistency == pytest.approx(6 / 9)


def test_scores_and_summary():
    seeds = (0, 1)
    perfect = summary([score(s, render_scene(random_edit(s).target, *SIZE)) for s in seeds])
    wrong = summary([score(s, render_scene(random_edit(s).source, *SIZE)) for s in seeds])
    assert perfect["right colour %"] == perfect["right shape %"] == perfect["PSNR inside, dB"] == 100
    assert wrong["PSNR background, dB"] == 100 and wrong["PSNR inside, dB"] < 30
    assert (wrong["right colour %"], wrong["right shape %"]) == (50, 50)  # seed 0 recolours, seed 1 reshapes


def test_dominant_colour_of_rendered_shapes():
    scenes = [dataclasses.replace(s, shapes=s.shapes[:1]) for s in map(random_scene, range(40))]
    right = [dominant_colour(render_scene(s, 3, 96, 96)) == s.shapes[0].colour for s in scenes]
    assert np.mean(right) > 0.95


def test_render_writes_clips_sheet_and_json(tmp_path):
    render_scenes(range(2), tmp_path)
    assert {f.name for f in (tmp_path / "00001").iterdir()} == {"source.mp4", "mask.mp4", "truth.mp4"}
    records = json.loads((tmp_path / "scenes.json").read_text())
    assert [r["seed"] for r in records] == [0, 1] and records[1]["prompt"] == random_edit(1).prompt
    assert Image.open(tmp_path / "sheet.png").width > 500
