"""The trained model that comes with kvlock: it loads as any Wan checkpoint and edits held-out
scenes.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanVACEPipeline

from kvlock.backbones.checkpoints import export_folder, shipped_folder
from kvlock.backbones.loading import load_backbone
from kvlock.bench.world import (
    edit_scenes,
    score_scenes,
    summary,
    vae_round_trip,
    whole_psnr,
)
from kvlock.editing.clips import default_config


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("shapes")


@pytest.mark.parametrize("cls, name", [(WanPipeline, "shapes-t2v"), (WanVACEPipeline, "shapes")])
def test_stock_pipelines_load_the_exported_folders_offline(cls, name, tmp_path):
    export_folder(name, tmp_path / name)
    pipe = cls.from_pretrained(tmp_path / name, local_files_only=True)
    loaded = load_backbone(name).pipe
    for part in ("transformer", "vae", "text_encoder"):
        own = getattr(loaded, part).state_dict()
        stock = getattr(pipe, part).to(torch.float32).state_dict()
        assert all(torch.equal(own[key], stock[key]) for key in own | stock)


def test_the_stock_text_to_video_pipeline_runs_on_it(tmp_path):
    export_folder("shapes-t2v", tmp_path / "toy")
    pipe = WanPipeline.from_pretrained(tmp_path / "toy", local_files_only=True)
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


def test_the_weights_stay_under_39_megabytes_so_that_the_wheel_stays_under_40():
    found = [f for f in shipped_folder().rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in found) < 39e6
    assert not [f.name for f in found if f.suffix not in (".safetensors", ".json")]


def test_no_config_names_a_folder_of_the_machine_that_made_it():
    texts = [f.read_text() for f in shipped_folder().rglob("*.json")]
    assert texts and not any("/home" in t or "/root" in t or "/tmp" in t for t in texts)


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
