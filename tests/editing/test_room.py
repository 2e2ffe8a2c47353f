"""Room for an edit's frames in memory, counted against what is free."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kvlock.editing.edit import plan
from kvlock.editing.job import EditJob
from kvlock.editing.room import frame_bytes
from kvlock.media.clip import Clip
from kvlock.media.encoding import MOST_SIDE
from kvlock.media.fit import Fit
from kvlock.media.pictures import MOST_HEIGHT, MOST_WIDTH, comparison_size

FIT = Fit((9, 480, 832), (9, 480, 832))
PIXELS = 9 * 480 * 832


def job(frames: int = 9, **change) -> EditJob:
    clip = Clip(
        torch.zeros(frames, 96, 96, 3, dtype=torch.uint8),
        Fraction(8),
        tuple(range(frames)),
        Fraction(1, 8),
        Path(),
    )
    mask = torch.ones(frames, 96, 96, dtype=torch.bool)
    return EditJob(clip, mask, ("a red circle",), "shapes", device="cpu", **change)


def test_frames_take_at_least_what_is_held_at_once():
    one, four = frame_bytes(FIT, 1), frame_bytes(FIT, 4)
    shown = 3 * 9 * 480 * 832 * 3
    assert one > 3 * (3 * PIXELS) + shown  # source fitted, edit, composite, comparison
    assert four - one >= 3 * 3 * PIXELS
    assert frame_bytes(Fit((18, 480, 832), (18, 480, 832)), 1) == 2 * one


def test_frames_count_against_what_is_free(monkeypatch):
    needed = plan(job()).peak_bytes
    assert needed is not None and needed > frame_bytes(Fit((9, 96, 96), (9, 96, 96)), 1)
    for where in ("estimate", "fitting"):
        monkeypatch.setattr(f"kvlock.cost.{where}.device_bytes", lambda device: needed)
    assert plan(job()).peak_bytes == needed
    monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: needed - 1)
    with pytest.raises(ValueError, match="the edit needs .* GB on cpu, which has"):
        plan(job())


def test_frames_that_do_not_fit_are_refused_though_the_model_is_elsewhere(monkeypatch):
    monkeypatch.setattr("kvlock.cost.fitting.device_bytes", lambda device: 10_000)
    with pytest.raises(ValueError, match="the clip's frames alone need .* 0.0 GB are free"):
        plan(job())
    assert plan(job(memory_check=False)).peak_bytes is None


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 16384), (16384, 1), (2160, 3840), (4096, 4096), (5, 1281), (333, 777)]
)
def test_a_comparison_of_any_clip_fits_into_what_the_encoder_takes(size):
    height, width = comparison_size(*size)
    assert height % 2 == width % 2 == 0 and max(height, width) <= MOST_SIDE
    assert 0 < height <= MOST_HEIGHT + 1 and 0 < width <= MOST_WIDTH + 2
