"""`kvlock calibrate`: what is usual for a model, measured and kept beside it."""

import json

import numpy as np
import pytest

from kvlock.backbones.calibration import calibration_path, read_usual
from kvlock.cli import main
from kvlock.editing.clips import default_config
from kvlock.methods.options import flat
from kvlock.shapes.scenes import write_scene
from support import tiny


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A tiny model, five clips without a known truth, and the command that calibrates it."""
    folder = tmp_path_factory.mktemp("calibrated")
    tiny.vace_pipe().save_pretrained(folder / "model")
    lines = []
    for seed in range(5):
        write_scene(seed, folder / str(seed))
        files = dict(video=f"{seed}/source.mp4", mask=f"{seed}/mask.mp4")
        lines.append(dict(id=f"clip-{seed}", prompt="a red cat", **files))
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["calibrate", str(folder / "model"), "--suite", str(folder / "clips.jsonl")]
    words += ["--steps", "6"]
    assert main(words) == 0
    return folder, words


def test_calibrate_stores_the_median_at_each_level_beside_the_model(calibrated):
    folder, _ = calibrated
    model = str(folder / "model")
    record = json.loads(calibration_path(model).read_text())
    assert calibration_path(model).parent == folder / "model" and record["clips"] == 5
    out = folder / "runs"
    words = ["bench", "run", str(folder / "clips.jsonl"), "--methods", "plain", "--steps", "6"]
    words += ["--prediction", "conditional", "--window", str(1 / 6), "--model", model]
    assert main([*words, "--out", str(out)]) == 0
    traces = [json.loads(p.read_text()) for p in out.glob("results/*.plain.*/trace.json")]
    assert len(traces) == 5
    levels = list(zip(*traces))[2:]  # nothing varies before there are two predictions
    sigmas = [r["sigma"] for r in traces[0]]
    # The window is a sixth of 6 steps, but two at least.
    walked = [np.var(sigmas[step - 2 : step], ddof=1) for step in range(2, 6)]
    expected = [
        (x[0]["sigma"], np.median([r["variance"] for r in x]) / w) for x, w in zip(levels, walked)
    ]
    assert np.allclose(record["usual"], expected, rtol=1e-5) and len(expected) == 4
    assert read_usual(model) == tuple(map(tuple, record["usual"]))
    assert flat(default_config(model, "calibrated"))["usual"] == read_usual(model)
    assert "usual" not in flat(default_config(model))


def test_an_edit_by_what_is_usual_and_the_same_again(calibrated, tmp_path):
    folder, _ = calibrated
    words = [f"{folder}/0/source.mp4", "--mask", f"{folder}/0/mask.mp4", "--prompt", "a red cat"]
    words += ["--steps", "3", "--model", str(folder / "model"), "--method", "calibrated-spatial"]
    assert main(["edit", *words, "--out", str(tmp_path / "first")]) == 0
    record = str(tmp_path / "first" / "run.json")
    assert main(["edit", "--from", record, "--out", str(tmp_path / "again")]) == 0
    first, again = ((tmp_path / n / "edited.mp4").read_bytes() for n in ("first", "again"))
    assert first == again


def test_what_cannot_be_calibrated_is_said(calibrated, tmp_path, capsys, monkeypatch):
    folder, words = calibrated
    assert main(words[:2]) == 2 and "--suite is missing" in capsys.readouterr().err
    assert main([*words[:-1], "2"]) == 2 and "3 steps or more" in capsys.readouterr().err
    scenes = [dict(id=f"s{n}", prompt="a red circle", scene=n) for n in range(5)]
    (folder / "scenes.jsonl").write_text("\n".join(map(json.dumps, scenes)))
    assert main([*words[:2], "--suite", str(folder / "scenes.jsonl"), "--steps", "3"]) == 2
    assert "of 5 edits are right" in capsys.readouterr().err  # a random model makes no right edit
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_path("wan2.1-vace-14b").is_relative_to(
        tmp_path / "kvlock" / "Wan-AI--Wan2.1-VACE-14B-diffusers"
    )
    assert read_usual("wan2.1-vace-14b") == ()
    with pytest.raises(ValueError, match="type kvlock calibrate"):
        default_config("wan2.1-vace-14b", "calibrated")
    calibration_path("some/model").parent.mkdir(parents=True)
    calibration_path("some/model").write_text('{"usual": [1]}')
    with pytest.raises(ValueError, match="make it again with kvlock calibrate some/model"):
        read_usual("some/model")
