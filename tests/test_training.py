"""The training loop resumes as if it had not been stopped, and the stages write folders that load."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanVACEPipeline
from safetensors.torch import load_file
from torch import nn

from kvlock.backbones.known_models import SHAPES_FOLDER
from kvlock.backbones.loading import load_backbone
from kvlock.shapes import checkpoint
from kvlock.shapes.render import render_mask
from kvlock.shapes.scene import random_edit
from kvlock.shapes.train_transformer import shared_trunk
from kvlock.shapes.train_vae import HOLE_SHARE, OBJECT_WEIGHT, clip_batch
from kvlock.shapes.trainer import train
from kvlock.shapes.training import train_world


def _line(folder, steps, stop=None):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def loss_at(step):
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(x) - x.sum(1, keepdim=True)).square().mean()}

    return train(module, loss_at, folder, steps, 0.3, ema_decay=0.9, save_every=20)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole = _line(tmp_path / "whole", 100)
    with pytest.raises(KeyboardInterrupt):
        _line(tmp_path / "stopped", 100, stop=47)
    resumed = _line(tmp_path / "stopped", 100)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (whole["weight"] - 1).abs().max() < 0.3
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100] and lines[1]["loss"] < lines[0]["loss"]


def test_clips_for_the_vae_depend_on_their_seed_alone():
    (batch, weight), (again, again_weight) = (clip_batch(range(first, 9), 9, 96, 48) for first in (5, 7))
    assert batch.shape == (4, 3, 9, 48, 48) and torch.equal(batch[2:], again)
    assert weight.shape == (4, 1, 9, 48, 48) and torch.equal(weight[2:], again_weight)
    assert batch.abs().max() <= 1


def test_crops_for_the_vae_follow_the_object_and_weigh_it_unless_it_is_a_hole():
    clips, weight = clip_batch(range(40), 9, 96, 56)
    weighed = (weight > 1).flatten(1).float().mean(1)
    anywhere = np.mean([render_mask(random_edit(s), 9, 96, 96).mean() for s in range(40)])
    assert weighed[weighed > 0].mean() > 1.5 * anywhere
    holes = [s for s in range(40) if np.random.default_rng(s).random() < HOLE_SHARE]
    assert holes and all((weight[s] == 1).all() for s in holes)
    assert set(weight.unique().tolist()) == {1.0, OBJECT_WEIGHT} and len(holes) < 20


def test_the_trunk_shares_its_weights_with_the_vace_model():
    vace = checkpoint.build_transformer()
    trunk = shared_trunk(vace)
    shared = {id(p) for p in vace.parameters()}
    assert all(id(p) in shared for p in trunk.parameters())


def test_every_stage_runs_and_the_folders_load_with_diffusers(tmp_path, monkeypatch):
    monkeypatch.setattr("kvlock.shapes.train_transformer.SHARD", 10)
    steps, sampled = {"vae": 1, "transformer": 2, "decoder": 1}, []
    train_world(tmp_path, "all", steps, 10, "cpu", lambda folder, step: sampled.append((folder.name, step)))
    assert sampled == [("sample-model", 2)]
    size = sum(f.stat().st_size for name in ("shapes-t2v", "shapes-vace") for f in (tmp_path / name).rglob("*.*"))
    assert size < 60e6
    for name, cls in (("shapes-t2v", WanPipeline), ("shapes-vace", WanVACEPipeline)):
        pipe = cls.from_pretrained(tmp_path / name, local_files_only=True)
        assert len(set(pipe.vae.config.latents_std)) > 1
        assert load_backbone(str(tmp_path / name)).vae_stride == (4, 8, 8)


def test_training_can_start_from_a_trained_model(tmp_path, monkeypatch):
    """With no step to make, what comes out is what went in."""
    monkeypatch.setattr("kvlock.shapes.train_transformer.SHARD", 10)
    shipped = Path(str(files("kvlock") / SHAPES_FOLDER / "shapes-vace"))
    train_world(tmp_path, "all", {"vae": 0, "transformer": 0, "decoder": 0}, 10, "cpu", init=shipped)
    for part in ("transformer", "text_encoder"):
        before, after = (
            load_file(next((root / part).glob("*.safetensors"))) for root in (shipped, tmp_path / "shapes-vace")
        )
        assert all(torch.equal(before[name], after[name]) for name in before)
    before, after = (
        json.loads((root / "vae" / "config.json").read_text()) for root in (shipped, tmp_path / "shapes-vace")
    )
    assert (before["latents_mean"], before["latents_std"]) == (after["latents_mean"], after["latents_std"])


def test_unknown_stage_is_named(tmp_path):
    with pytest.raises(ValueError, match="stage 'unet' is unknown"):
        train_world(tmp_path, "unet", {}, 1, "cpu")
