"""Real clips with their masks, where they are at hand."""

from pathlib import Path

import pytest

from kvlock.cli import main
from kvlock.media.video import read_video

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not part of the repository")
def test_a_real_clip_comes_back_at_its_own_size_and_rate(tmp_path, capsys):
    clip, mask = str(CLIPS / "vace_test2.mp4"), str(CLIPS / "vace_test2.png")
    words = [
        "edit",
        clip,
        "--mask",
        mask,
        "--prompt",
        "a red circle",
        "--model",
        "shapes",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    edited = read_video(tmp_path / "out" / "edited.mp4", 99)
    assert edited.frames.shape == (25, 768, 512, 3) and edited.rate == 25
    said = capsys.readouterr().out
    assert "25 frames" in said and "resize and VAE" in said
