"""The trained model that comes with kvlock: it loads as any Wan checkpoint and edits held-out
scenes.
"""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanVACEPipeline

from kvlock.backbones.known_models import SHAPES_FOLDER
from kvlock.backbones.loading import load_backbone
from kvlock.bench.world import (
    edit_scenes,
    score_scenes,
    summary,
    vae_round_trip,
    whole_psnr,
)
from kvlock.editing.clips import default_config

WEIGHTS = files("kvlock") / SHAPES_FOLDER


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("shapes")


@pytest.mark.parametrize(
    "cls, name", [(WanPipeline, "shapes-t2v"), (WanVACEPipeline, "shapes-vace")]
)
def test_stock_pipelines_load_the_folders_offline(cls, name):
    pipe = cls.from_pretrained(str(WEIGHTS / name), local_files_only=True)
    assert type(pipe.vae).__name__ == "AutoencoderKLWan"


def test_the_stock_text_to_video_pipeline_runs_on_it():
    pipe = WanPipeline.from_pretrained(str(WEIGHTS / "shapes-t2v"), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        "a red star",
        height=96,
        width=96,
        num_frames=9,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        max_sequence_length=16,
    ).frames
    assert frames.shape == (1, 9, 96, 96, 3) and np.isfinite(frames).all()


def test_both_folders_stay_under_60_megabytes_of_safetensors():
    found = [f for name in ("shapes-t2v", "shapes-vace") for f in _walk(WEIGHTS / name)]
    assert sum(len(f.read_bytes()) for f in found) < 60e6
    assert not [f.name for f in found if not f.name.endswith((".safetensors", ".json"))]


def _walk(folder):
    return [f for f in folder.iterdir() if f.is_file()] + [
        g for d in folder.iterdir() if d.is_dir() for g in _walk(d)
    ]


def test_the_vae_keeps_30_decibels_on_held_out_scenes(backbone):
    seeds = range(100, 108)
    assert (
        np.mean([whole_psnr(seed, clip) for seed, clip in vae_round_trip(backbone, seeds).items()])
        > 30
    )


@pytest.mark.parametrize("method", ["plain", "kv-lock"])
def test_it_edits_held_out_scenes(backbone, method):
    """Loose bounds on ten scenes; docs/shapes.md has the measured numbers on sixty-four."""
    config = replace(default_config("shapes", method), num_inference_steps=12)
    edited = edit_scenes(backbone, range(200, 210), config)
    found = summary(score_scenes(edited))
    assert found["right colour %"] >= 70
    assert found["PSNR background, dB"] > 25
