"""The stages of training write folders that load, and start from a trained model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanVACEPipeline, WanVACETransformer3DModel
from safetensors.torch import load_file

from kvlock.backbones.checkpoints import export_folder, weights_digest
from kvlock.backbones.loading import load_backbone
from kvlock.bench.training import PANELS, plot_training
from kvlock.shapes import checkpoint
from kvlock.shapes.render import render_mask
from kvlock.shapes.training import flow, latents, loop, stages, train_world, validation
from kvlock.shapes.training.loop import load_average
from kvlock.shapes.training.vae import HOLE_SHARE, OBJECT_WEIGHT, clip_batch


@pytest.fixture
def small(monkeypatch):
    """One shard of two clips a bucket, a line of log and two validation scenes after every step."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(latents, "SHARD", 2)
    monkeypatch.setattr(flow, "LOOK_EVERY", 1)
    monkeypatch.setattr(stages, "TEXT_STEPS", 1)
    monkeypatch.setattr(validation, "SCENES", replace(validation.SCENES, batch=2))


def test_clips_for_the_vae_depend_on_their_seed_alone():
    (batch, weight), (again, again_weight) = (
        clip_batch(range(first, 9), 9, 96, 48) for first in (5, 7)
    )
    assert batch.shape == (4, 3, 9, 48, 48) and torch.equal(batch[2:], again)
    assert weight.shape == (4, 1, 9, 48, 48) and torch.equal(weight[2:], again_weight)
    assert batch.abs().max() <= 1


def test_crops_for_the_vae_follow_the_object_and_weigh_it_unless_it_is_a_hole():
    _, weight = clip_batch(range(40), 9, 96, 56)
    weighed = (weight > 1).flatten(1).float().mean(1)
    anywhere = np.mean([render_mask(latents.random_edit(s), 9, 96, 96).mean() for s in range(40)])
    assert weighed[weighed > 0].mean() > 1.5 * anywhere
    holes = [s for s in range(40) if np.random.default_rng(s).random() < HOLE_SHARE]
    assert holes and all((weight[s] == 1).all() for s in holes)
    assert set(weight.unique().tolist()) == {1.0, OBJECT_WEIGHT} and len(holes) < 20


def test_every_stage_runs_and_the_folders_load_with_diffusers(tmp_path, small):
    steps, sampled = {"vae": 1, "transformer": 1, "decoder": 1}, []
    train_world(tmp_path, "all", steps, 2, "cpu", lambda *where: sampled.append(where))
    weights = tmp_path / "weights"
    assert sampled == [(weights, 1)] and plot_training(tmp_path, tmp_path / "curve.png")
    for stage, panel in PANELS.items():  # no panel is empty, and the log has all its curves
        line = json.loads((tmp_path / stage / "log.jsonl").read_text())
        assert panel.curves and panel.curves.keys() <= line.keys()
    assert sum(f.stat().st_size for f in weights.rglob("*.*")) < 38e6
    assert not any(str(tmp_path) in f.read_text() for f in weights.rglob("*.json"))
    for name, cls, family in (
        ("shapes-t2v", WanPipeline, "shapes-t2v"),
        ("shapes-vace", WanVACEPipeline, "shapes"),
    ):
        export_folder(str(weights / name), tmp_path / "exported" / name)
        pipe = cls.from_pretrained(tmp_path / "exported" / name, local_files_only=True)
        assert len(set(pipe.vae.config.latents_std)) > 1
        backbone = load_backbone(str(weights / name))
        assert (backbone.vae_stride, backbone.patch_size) == ((4, 8, 8), (1, 1, 1))
        assert (backbone.spec.name, backbone.max_sequence_length) == (family, 16)
    for name, sampled_too in (("vace", True), ("text-to-video", False)):
        line = json.loads((tmp_path / name / "validation.jsonl").read_text())
        assert line["step"] == 1 and line["error at 0.8"] > 0
        assert ("PSNR inside" in line) == sampled_too


def test_training_can_start_from_a_trained_model(tmp_path, small):
    """With no step to make, what comes out is what went in, both transformers and the encoder."""
    trained = tmp_path / "trained"
    parts: dict = dict(vae=checkpoint.build_vae(), text_encoder=checkpoint.build_text_encoder())
    checkpoint.set_latent_statistics(parts["vae"], torch.randn(4, 16, 3, 4, 4))
    models = dict(vace=checkpoint.build_vace(), text_to_video=checkpoint.build_text_to_video())
    checkpoint.save_models(trained, **parts, **models)
    none = {"vae": 0, "transformer": 0, "decoder": 0}
    train_world(tmp_path, "all", none, 2, "cpu", init=trained)
    roots = trained, tmp_path / "weights"
    files = [f.relative_to(trained) for f in trained.rglob("*.safetensors")]
    assert len(files) == 4  # two transformers, one VAE, one text encoder
    for file in files:
        before, after = (load_file(root / file) for root in roots)
        assert all(torch.equal(before[key], after[key]) for key in before)
    configs = [json.loads((root / "shared" / "vae" / "config.json").read_text()) for root in roots]
    for name in ("latents_mean", "latents_std"):
        assert configs[0][name] == configs[1][name]


def test_of_a_model_of_another_size_only_the_vae_is_taken(tmp_path, small):
    config = dict(checkpoint.TRUNK, num_layers=3, vace_layers=[0, 2], vace_in_channels=96)
    other = tmp_path / "other"
    WanVACETransformer3DModel(**config).save_pretrained(other / "shapes-vace" / "transformer")
    checkpoint.build_vae().save_pretrained(other / "shared" / "vae")
    for stage in ("vae", "text", "latents", "vace"):
        none = {"vae": 0, "transformer": 0}
        train_world(tmp_path / "run", stage, none, 2, "cpu", init=other)
    before, after = (
        load_file(next(folder.glob("*.safetensors")))
        for folder in (other / "shared" / "vae", tmp_path / "run" / "vae-joint")
    )
    assert all(torch.equal(before[key], after[key]) for key in before)
    names = checkpoint.build_vace().state_dict().keys()
    assert load_average(tmp_path / "run" / "vace").keys() == names


def test_a_training_is_installed_over_the_models_that_are_there(tmp_path):
    roots = tmp_path / "trained", tmp_path / "installed"
    for seed, root in enumerate(roots):
        torch.manual_seed(seed)
        build = checkpoint.build_vae, checkpoint.build_text_encoder
        build += checkpoint.build_vace, checkpoint.build_text_to_video
        checkpoint.save_models(root, *(make() for make in build))
    calibrations = [
        roots[1] / name / "kvlock-calibration.json" for name in ("shapes-vace", "shapes-t2v")
    ]
    for file in calibrations:
        file.write_text("{}")
    names = ("shapes-vace", "shapes-t2v")
    wanted, before = ([weights_digest(str(root / name)) for name in names] for root in roots)
    shutil.move(roots[0] / "shared" / "vae", tmp_path / "vae")
    with pytest.raises(ValueError, match="lacks its component 'vae'"):
        checkpoint.install_models(*roots)
    assert [weights_digest(str(roots[1] / name)) for name in names] == before
    shutil.move(tmp_path / "vae", roots[0] / "shared" / "vae")
    checkpoint.install_models(*roots)
    assert [weights_digest(str(roots[1] / name)) for name in names] == wanted
    assert not any(file.exists() for file in calibrations)
    with pytest.raises(ValueError, match="nowhere holds no shapes-vace; type kvlock shapes train"):
        checkpoint.install_models(tmp_path / "nowhere", roots[1])


def test_a_stage_that_lacks_an_earlier_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vae-joint is not there; run the stage 'vae' first"):
        train_world(tmp_path, "text-to-video", {"transformer": 1}, 2, "cpu")


def test_unknown_stage_is_named(tmp_path):
    with pytest.raises(ValueError, match="stage 'unet' is unknown"):
        train_world(tmp_path, "unet", {}, 1, "cpu")
