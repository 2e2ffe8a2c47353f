"""What a training shows of itself."""

import json

from PIL import Image

from kvlock.bench.suite import HELD_OUT, VALIDATION
from kvlock.bench.training import SAMPLES, draw_samples, plot_training


def _log(folder, stage, **losses):
    (folder / stage).mkdir(parents=True)
    lines = [json.dumps({"step": step} | losses) for step in (50, 100)]
    (folder / stage / "log.jsonl").write_text("\n".join(lines) + "\n")


def _width(folder):
    assert plot_training(folder, folder / "curve.png")
    with Image.open(folder / "curve.png") as picture:
        return picture.width


def test_the_logs_become_a_picture_with_a_panel_a_stage(tmp_path):
    _log(tmp_path, "vae", loss=0.2, mse=0.1, inside=0.3, kl=3.0)
    one = _width(tmp_path)
    _log(tmp_path, "text", loss=5.0)
    assert _width(tmp_path) == 2 * one > 300


def test_a_training_without_a_log_has_no_picture(tmp_path):
    assert not plot_training(tmp_path, tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_samples_are_validation_scenes_and_no_held_out_ones():
    assert set(SAMPLES) <= set(VALIDATION) and not set(SAMPLES) & set(HELD_OUT)


def test_samples_of_a_model_in_training_are_drawn(tmp_path, model, capsys):
    draw_samples(model, tmp_path / "samples", 7, SAMPLES[:2])
    assert [f.name for f in (tmp_path / "samples").iterdir()] == ["000007.png"]
    assert "step 7: n 2" in capsys.readouterr().out
