"""From names and folders to backbones, and what is refused on the way."""

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from kvlock.backbones.loading import backbone_of, load_backbone
from kvlock.backbones.quiet import quiet
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.methods.edit import edit_clips
from support import tiny
from support.edits import config, make_request


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny.wan_pipe().save_pretrained(root / "wan")
    tiny.vace_pipe().save_pretrained(root / "vace")
    return root


@pytest.fixture
def broken(folders, tmp_path):
    return shutil.copytree(folders / "vace", tmp_path / "model")


@pytest.mark.parametrize("name, sites", [("wan", 2), ("vace", 3 + 2)])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_a_folder_loads_in_each_dtype_with_the_vae_in_float32(folders, name, sites, dtype):
    backbone = load_backbone(str(folders / name), device="cpu", dtype=dtype)
    expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert backbone.pipe.transformer.dtype == backbone.pipe.text_encoder.dtype == expected
    assert {p.dtype for p in backbone.pipe.vae.parameters()} == {torch.float32}
    assert len(backbone.attention_sites(torch.tensor(0))) == sites
    assert (backbone.vae_stride, backbone.patch_size) == ((4, 8, 8), (1, 2, 2))
    assert backbone.needs_anchor == (name == "wan") == (not backbone.spec.takes_control)


def test_what_was_saved_is_what_is_loaded(folders):
    pipe, loaded = tiny.vace_pipe(), load_backbone(str(folders / "vace")).pipe
    for part in ("transformer", "vae", "text_encoder"):
        saved = getattr(pipe, part).state_dict()
        for name, tensor in getattr(loaded, part).state_dict().items():
            assert torch.equal(tensor, saved[name]), name


def test_flow_shift_overrides_the_checkpoints(folders):
    own, other = (
        load_backbone(str(folders / "wan"), flow_shift=s).sampler(10, True).sigmas
        for s in (None, 8.0)
    )
    assert own[5] == pytest.approx(0.75, abs=1e-3) and other[5] == pytest.approx(8 / 9, abs=1e-3)


def test_blocks_are_compiled_where_asked(folders):
    """What runs compiled is in test_engineering.py; here, that every block of both streams will."""
    for asked in (False, True):
        transformer = load_backbone(str(folders / "vace"), compile_blocks=asked).pipe.transformer
        blocks = (*transformer.blocks, *transformer.vace_blocks)
        assert all((block._compiled_call_impl is not None) == asked for block in blocks)


def _rewrite(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_folders_that_are_not_whole_or_not_safe_are_refused(broken):
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    with pytest.raises(ValueError, match="no weights in transformer/"):
        load_backbone(str(broken))
    (broken / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="pickled weights \\(diffusion_pytorch_model.bin\\)"):
        load_backbone(str(broken))
    weights.write_bytes(kept)
    scheduler = broken / "scheduler" / "scheduler_config.json"
    _rewrite(scheduler, use_flow_sigmas=False, prediction_type="epsilon")
    with pytest.raises(ValueError, match="prediction_type='epsilon' is not flow matching"):
        load_backbone(str(broken))
    shutil.rmtree(broken / "vae")
    with pytest.raises(ValueError, match="lacks its component 'vae'"):
        load_backbone(str(broken))
    _rewrite(broken / "model_index.json", _class_name="StableDiffusionPipeline", vae=[None, None])
    with pytest.raises(ValueError, match="StableDiffusionPipeline; kvlock can edit with WanPipel"):
        load_backbone(str(broken))
    os.remove(broken / "model_index.json")
    with pytest.raises(
        ValueError, match="model_index.json: there is no such file; expected a diffusers"
    ):
        load_backbone(str(broken))


@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json"])
@pytest.mark.parametrize("content", ["[1, 2]", "3", "{", "", "null"])
def test_configs_that_are_no_json_objects_are_refused_in_a_sentence(broken, name, content):
    (broken / name).write_text(content)
    with pytest.raises(ValueError, match="expected a diffusers folder") as error:
        load_backbone(str(broken))
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [3, None, ["WanPipeline"], {}])
def test_an_index_whose_class_is_no_name_is_refused(broken, value):
    _rewrite(broken / "model_index.json", _class_name=value)
    with pytest.raises(ValueError, match="kvlock can edit with WanPipeline"):
        load_backbone(str(broken))


def test_wan_2_2_is_refused_rather_than_run_with_half_its_experts(broken):
    _rewrite(broken / "model_index.json", boundary_ratio=0.875)
    with pytest.raises(ValueError, match="lacks its component 'transformer_2'"):
        load_backbone(str(broken))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(model="shape"), "did you mean shapes\\?"),
        (dict(model="wan2.1-vace-1.3"), "did you mean wan2.1-vace-1.3b\\?"),
        (dict(model="Wan2.1-VACE-14B"), "did you mean wan2.1-vace-14b\\?"),
        (dict(model="nobody"), "neither a known name, nor a folder, .* the names are shapes,"),
        (dict(model=""), "neither a known name"),
        (dict(model="./nowhere/model"), "neither a known name"),
        (dict(model="shapes", device="gpu"), "device 'gpu' is unknown"),
        (dict(model="shapes", device="cuda:99"), "this machine has"),
        (dict(model="shapes", device="meta"), "not supported"),
        (dict(model="shapes", dtype="int8"), "dtype 'int8' is unknown"),
        (dict(model="shapes", flow_shift=0.0), "flow_shift is 0.0; expected above 0"),
        (dict(model="shapes", device="cpu", offload="model"), "leave it off"),
        (dict(model="shapes", offload="parts"), "expected one of none, model, group"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**arguments)


@pytest.mark.parametrize("model", [None, 3, tiny.vace_pipe, ["shapes"]])
def test_what_is_no_name_is_a_sentence(model):
    with pytest.raises(ValueError, match="expected a name from kvlock models, a hub id or a fold"):
        load_backbone(model)


def test_a_pipeline_that_is_loaded_already_has_its_own_door(folders):
    pipe = tiny.vace_pipe()
    with pytest.raises(ValueError, match="model is a WanVACEPipeline; .*loading.backbone_of\\)"):
        load_backbone(pipe)
    backbone = backbone_of(pipe)
    assert type(backbone) is WanVACEBackbone and backbone.pipe is pipe
    assert load_backbone(folders / "vace").spec == backbone.spec  # a path is a name, too
    with pytest.raises(
        ValueError, match="int is of no known family; expected WanPipeline, WanVACE"
    ):
        backbone_of(3)


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), UniPCMultistepScheduler()])
def test_a_scheduler_given_from_python_that_is_no_flow_matching_is_a_sentence(scheduler):
    pipe = tiny.vace_pipe()
    backbone = WanVACEBackbone(pipe)
    pipe.scheduler = scheduler
    for use in (
        lambda: backbone_of(pipe),
        lambda: edit_clips(backbone, [make_request()], config()),
    ):
        with pytest.raises(ValueError, match="not flow matching; expected FlowMatchEuler"):
            use()


def test_loading_and_editing_print_nothing(folders):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from support.edits import config, make_request\n"
        "from kvlock.backbones.loading import load_backbone\n"
        "from kvlock.methods.edit import edit_clips\n"
        "for name in sys.argv[1:]:\n"
        "    edit_clips(load_backbone(name), [make_request()], config())\n"
    )
    names = [str(folders / "vace"), str(folders / "wan"), "shapes"]
    run = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_libraries_settings_are_put_back(folders):
    libraries = (diffusers_logging, transformers_logging)
    before = [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    with pytest.raises(ZeroDivisionError), quiet():
        assert all(lib.get_verbosity() == logging.ERROR for lib in libraries)
        assert not any(lib.is_progress_bar_enabled() for lib in libraries)
        raise ZeroDivisionError
    assert before == [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
