"""What is known of a family, and how it is recognised."""

import json
import os
import subprocess
import sys

import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

from kvlock.backbones import families
from kvlock.backbones.calibration import model_defaults
from kvlock.backbones.checkpoints import family_of
from kvlock.backbones.families import FAMILIES, WAN_NEGATIVE_PROMPT, recognised
from kvlock.backbones.known_models import KNOWN_MODELS, known_model
from kvlock.backbones.loading import load_backbone
from kvlock.cost.estimate import Estimator
from kvlock.cost.skeleton import skeleton
from kvlock.methods.catalogue import METHODS, method_config
from kvlock.methods.edit import edit_clips
from support import newcomer
from support.edits import BATCHED, SEQUENTIAL, config, dropped, latents_of, make_request

REAL = [m for m in KNOWN_MODELS if not m.packaged]


def _folder(path, pipeline, transformer, marks=()):
    """The configs of a checkpoint without its weights."""
    (path / "transformer").mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps({"_class_name": pipeline} | dict(marks)))
    (path / "transformer" / "config.json").write_text(json.dumps(transformer))
    return str(path)


@pytest.mark.parametrize("known", REAL, ids=lambda m: m.name)
def test_a_folder_a_hub_id_and_a_name_of_one_checkpoint_are_one_family(known, tmp_path):
    architecture = dict(skeleton(known.name).pipe.transformer.config)
    pipeline, marks = known.spec.pipeline, known.spec.marks
    folder = _folder(tmp_path / "anything", pipeline, architecture, marks)
    assert family_of(folder) is family_of(known.source) is family_of(known.name)
    family = family_of(folder)
    assert family.size and family.max_frames and family.fps
    assert (family.negative_prompt == WAN_NEGATIVE_PROMPT) == known.name.startswith(
        ("wan", "skyreels")
    )
    assert family.takes_control == ("vace" in known.name)
    assert model_defaults(folder, calibrated=False) == model_defaults(known.name, calibrated=False)


@pytest.mark.parametrize("name", ["shapes", "shapes-t2v"])
def test_a_folder_of_the_built_in_models_is_as_their_names_are(name, tmp_path):
    family = family_of(name)
    backbone = load_backbone(name)
    folder = _folder(tmp_path / "m", family.pipeline, dict(backbone.pipe.transformer.config))
    assert family_of(folder) is family is backbone.spec
    assert family.size == (96, 96) and family.negative_prompt == ""
    assert model_defaults(folder, calibrated=False)["guidance_scale"] == 3.0
    assert backbone.max_sequence_length == 16


def test_of_an_architecture_that_nobody_published_the_classes_alone_are_known():
    family = recognised("WanVACEPipeline", {"text_dim": 32}, {})
    assert family.takes_control and family.adapter == families.WAN_VACE.adapter
    assert (family.size, family.max_frames, family.negative_prompt) == (None, None, "")
    assert family.flow_shift() is None and family.options == {}
    assert recognised("StableDiffusionPipeline", {}, {}) is None


def test_the_flow_shift_is_that_of_the_size():
    family = families.WAN_T2V
    assert (
        family.flow_shift() == family.flow_shift((480, 832)) == family.flow_shift((624, 624)) == 3.0
    )
    assert family.flow_shift((720, 1280)) == family.flow_shift((960, 960)) == 5.0


def test_kv_lock_is_what_every_family_runs():
    assert {family.default_method for family in FAMILIES} == {"kv-lock"} <= set(METHODS)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_rows_options_are_options(family):
    method_config("kv-lock", {}, family.options)


@pytest.mark.parametrize("known", REAL, ids=lambda m: m.name)
def test_the_tables_parameter_counts(known):
    backbone = skeleton(known.name)
    experts = [getattr(backbone.pipe, name) for name in backbone.spec.experts]
    assert all(e.device.type == "meta" and e.dtype == torch.bfloat16 for e in experts)
    millions = sum(p.numel() for expert in experts for p in expert.parameters()) / 1e6
    assert known.parameters == pytest.approx(millions, abs=1)


@pytest.mark.parametrize("known", [m for m in REAL if "2.1" in m.name], ids=lambda m: m.name)
def test_wan_2_1_has_the_parameters_of_its_published_sizes(known):
    cls = {"wan2.1": WanTransformer3DModel, "wan2.1-vace": WanVACETransformer3DModel}[known.family]
    small, large = dict(num_attention_heads=12, ffn_dim=8960, num_layers=30), dict(num_layers=40)
    sizes = small if "1.3b" in known.name else large | dict(ffn_dim=13824)
    if "vace" in known.name:
        sizes |= dict(
            vace_layers=list(range(0, sizes["num_layers"], 2 if "1.3b" in known.name else 5))
        )
    with torch.device("meta"):
        model = cls(patch_size=(1, 2, 2), attention_head_dim=128, text_dim=4096, **sizes)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert known.parameters == pytest.approx(millions, rel=0.005)


def test_known_names_are_unique():
    assert len({m.name for m in KNOWN_MODELS}) == len(KNOWN_MODELS)
    for model in KNOWN_MODELS:
        assert known_model(model.name) is known_model(model.source) is model
        assert model.spec in FAMILIES


def test_the_table_loads_neither_torch_nor_diffusers():
    code = (
        "import sys, kvlock.backbones.known_models, kvlock.backbones.checkpoints as c\n"
        "assert c.family_of('wan2.1-vace-14b').takes_control\n"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0


@pytest.fixture
def added(monkeypatch, tmp_path):
    """A folder of a family that is one file and one row."""
    monkeypatch.setattr(families, "FAMILIES", newcomer.ROWS)
    newcomer.pipe().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_new_family_is_one_file_and_one_row(added):
    assert family_of(added) is newcomer.ROW
    backbone = load_backbone(added)
    assert type(backbone) is newcomer.Newcomer and backbone.spec is newcomer.ROW
    assert backbone.pipe.scheduler.config.flow_shift == 8.0
    assert load_backbone(added, size=(60, 100)).pipe.scheduler.config.flow_shift == 12.0
    assert model_defaults(added, calibrated=False) == {"guidance_scale": 6.0}
    locked = config("rigid")
    batched, sequential = (
        latents_of(backbone, [make_request()], locked, e) for e in (BATCHED, SEQUENTIAL)
    )
    torch.testing.assert_close(batched, sequential, atol=1e-4, rtol=0)
    free = latents_of(backbone, [make_request()], config("plain", background_anchor="latents"))
    assert (free - batched).abs().max() > 1e-3
    assert edit_clips(backbone, [make_request()], config())[0].trace[-1].variance > 0


def test_a_new_family_without_packed_forwards_says_that_it_cannot_drop(added):
    with pytest.raises(ValueError, match="cannot drop the background yet; take a method"):
        edit_clips(load_backbone(added), [make_request()], dropped(config("s-omega")))


def test_a_new_familys_costs_are_known(added, tmp_path):
    newcomer.pipe(num_layers=7).save_pretrained(tmp_path / "deep")
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    shallow, deep = (
        Estimator(model, torch.float32).cost(mask, config())
        for model in (added, str(tmp_path / "deep"))
    )
    assert shallow.branches == deep.branches > 0
    assert deep.attention_flops / shallow.attention_flops == 7 / 2
