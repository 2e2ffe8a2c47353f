"""The built-in models' measures."""

import pytest

from kvlock.bench.world import evaluate_world, score_scenes, summary
from kvlock.shapes.scenes import scene_clips


def test_scores_and_summary():
    """Seed 0 recolours, seed 1 reshapes, seed 3 removes."""
    perfect, wrong = (
        summary(score_scenes({seed: scene_clips(seed)[name] for seed in (0, 1)}))
        for name in ("truth", "source")
    )
    assert (
        perfect["right colour %"] == perfect["right shape %"] == perfect["PSNR inside, dB"] == 100
    )
    assert perfect["temporal"] == 1
    assert wrong["PSNR background, dB"] == 100 and wrong["PSNR inside, dB"] < 30
    assert (wrong["right colour %"], wrong["right shape %"]) == (50, 50)
    assert perfect["n"] == 2 and perfect["removed %"] != perfect["removed %"]  # NaN
    for name, removed in (("truth", 100), ("source", 0)):
        found = summary(score_scenes({3: scene_clips(3)[name]}))
        assert found["removed %"] == removed
        assert found["temporal"] != found["temporal"]  # NaN, even where an object was left


def test_no_scene_is_no_measure(tmp_path):
    with pytest.raises(ValueError, match="no scene to measure; expected --num 1"):
        evaluate_world(tmp_path / "out", range(0), 2, ("plain",), "shapes", "shapes-t2v")
    assert not (tmp_path / "out").exists()
