import json
import os
import shutil

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)

from kvlock.backbones.known_models import KNOWN_MODELS, known_model
from kvlock.backbones.loading import load_backbone
from kvlock.backbones.sampler import FlowSampler, check_flow_matching, with_flow_shift
from kvlock.core.config import KVLockConfig
from support import tiny


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
    assert backbone.pipe.transformer.dtype == expected
    assert {p.dtype for p in backbone.pipe.vae.parameters()} == {torch.float32}
    assert len(backbone.attention_sites()) == sites
    assert (backbone.vae_stride, backbone.patch_size) == ((4, 8, 8), (1, 2, 2))
    assert backbone.needs_anchor == (name == "wan")


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
    _rewrite(
        broken / "scheduler" / "scheduler_config.json",
        use_flow_sigmas=False,
        prediction_type="epsilon",
    )
    with pytest.raises(ValueError, match="prediction_type='epsilon' is not flow matching"):
        load_backbone(str(broken))
    shutil.rmtree(broken / "vae")
    with pytest.raises(ValueError, match="lacks its component 'vae'"):
        load_backbone(str(broken))
    _rewrite(broken / "model_index.json", _class_name="StableDiffusionPipeline", vae=[None, None])
    with pytest.raises(
        ValueError, match="StableDiffusionPipeline; kvlock can edit with WanPipeline"
    ):
        load_backbone(str(broken))
    os.remove(broken / "model_index.json")
    with pytest.raises(ValueError, match="no readable model_index.json"):
        load_backbone(str(broken))


@pytest.mark.parametrize("field", [{"boundary_ratio": 0.875}, {"expand_timesteps": True}])
def test_wan_2_2_is_refused_rather_than_run_with_half_its_experts(broken, field):
    _rewrite(broken / "model_index.json", **field)
    with pytest.raises(ValueError, match="Wan 2.2 checkpoint"):
        load_backbone(str(broken))


def test_damaged_weights_are_refused(broken):
    (broken / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="could not be loaded"):
        load_backbone(str(broken))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(model="shape"), "'shape' is neither a known name \\(shapes"),
        (dict(model="./nowhere/model"), "neither a known name"),
        (dict(model="shapes", device="gpu"), "device 'gpu' is unknown"),
        (dict(model="shapes", device="cuda:99"), "this machine has"),
        (dict(model="shapes", device="meta"), "not supported"),
        (dict(model="shapes", dtype="int8"), "dtype 'int8' is unknown"),
        (dict(model="shapes", device="cpu", offload=True), "leave it off"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**arguments)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="could not be fetched from the hub"):
        load_backbone("nobody/no-such-model-kvlock")


@pytest.mark.parametrize(
    "scheduler",
    [
        tiny.scheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
    ],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("multistep", [True, False])
def test_a_sampler_that_is_told_the_true_velocity_ends_at_the_clean_latents(scheduler, multistep):
    check_flow_matching(scheduler)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 2, 3, 4, 4, generator=generator) for _ in range(2))
    sampler = FlowSampler(scheduler, 8, multistep)
    latents = sampler.add_noise(clean, noise, 0)
    for step in range(8):
        expected = (1 - sampler.sigmas[step]) * clean + sampler.sigmas[step] * noise
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            sampler.denoised(latents, noise - clean, step), clean, atol=1e-4, rtol=0
        )
        latents = sampler.step(latents, noise - clean, step)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), UniPCMultistepScheduler()], ids=lambda s: type(s).__name__
)
def test_schedulers_that_are_not_flow_matching_are_refused(scheduler):
    with pytest.raises(ValueError, match="not flow matching"):
        check_flow_matching(scheduler)


def test_flow_shift_is_known_to_both_scheduler_kinds():
    assert with_flow_shift(tiny.scheduler(), 5.0).config.flow_shift == 5.0
    assert with_flow_shift(FlowMatchEulerDiscreteScheduler(), 5.0).config.shift == 5.0


WAN = dict(
    patch_size=(1, 2, 2),
    attention_head_dim=128,
    text_dim=4096,
    freq_dim=256,
    cross_attn_norm=True,
    in_channels=16,
)
SMALL, LARGE = (
    dict(num_attention_heads=12, ffn_dim=8960, num_layers=30),
    dict(ffn_dim=13824, num_layers=40),
)
FULL_SIZE = {
    "wan2.1-t2v-1.3b": (WanTransformer3DModel, SMALL),
    "wan2.1-t2v-14b": (WanTransformer3DModel, LARGE),
    "wan2.1-vace-1.3b": (
        WanVACETransformer3DModel,
        SMALL | dict(vace_layers=list(range(0, 30, 2))),
    ),
    "wan2.1-vace-14b": (WanVACETransformer3DModel, LARGE | dict(vace_layers=list(range(0, 40, 5)))),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_tables_parameter_counts(name):
    cls, fields = FULL_SIZE[name]
    with torch.device("meta"):
        model = cls(**WAN, **fields)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert known_model(name).parameters == pytest.approx(millions, rel=0.005)


def test_every_known_model_has_valid_defaults_and_a_unique_name():
    assert len({m.name for m in KNOWN_MODELS}) == len(KNOWN_MODELS)
    for model in KNOWN_MODELS:
        KVLockConfig(**model.defaults)
        assert known_model(model.name) is known_model(model.source) is model
