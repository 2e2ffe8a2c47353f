"""The logs of a training run become a picture."""

import pytest
from PIL import Image

from kvlock.bench.training_curve import plot_training


def test_the_logs_become_a_picture(tmp_path):
    with pytest.raises(ValueError, match="holds no training log"):
        plot_training(tmp_path, tmp_path / "curve.png")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "log.jsonl").write_text('{"step": 50, "mse": 0.1}\n{"step": 100, "mse": 0.05}\n')
    plot_training(tmp_path, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").width > 300
