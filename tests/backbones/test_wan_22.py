"""Wan 2.2: two experts, and a timestep for every token."""

import pytest
import torch
from torch import nn

from kvlock.backbones.families import family_named
from kvlock.backbones.placement import CPU, Placement
from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.core.schedule import plan_steps
from kvlock.methods.catalogue import METHODS
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import with_options
from support.edits import BATCHED, SEQUENTIAL, branches_of, latents_of, wide_request
from support.pipes import PIPES
from support.tiny_family import TEXT_LENGTH

STEPS = 6
TINY = {tiny.row: tiny for tiny in PIPES}
GPU = torch.device("cuda")


def _backbone(row="wan2.2"):
    return WanBackbone(TINY[row].pipe(), TEXT_LENGTH)


def _config(method, **options):
    toy = dict(num_inference_steps=STEPS, lock_steps=1.0, threshold=0.02)
    return with_options(METHODS[method], toy | options)


def _ran(backbone, monkeypatch):
    """The expert of each forward from here on."""
    names = []
    for name in backbone.spec.experts:
        forward = getattr(backbone.pipe, name).forward

        def watched(*args, _name=name, _forward=forward, **inputs):
            names.append(_name)
            return _forward(*args, **inputs)

        monkeypatch.setattr(getattr(backbone.pipe, name), "forward", watched)
    return names


def test_the_second_expert_takes_over_below_the_boundary(monkeypatch):
    backbone = _backbone()
    sampler = backbone.sampler(STEPS, multistep=False)
    low = [float(sampler.timestep(k)) < 700 for k in range(STEPS)]
    assert sampler.switch == low.index(True) and 0 < sampler.switch < STEPS
    ran = _ran(backbone, monkeypatch)
    edit_clips(backbone, [TINY["wan2.2"].request()], _config("rigid"))
    assert ran == ["transformer"] * sampler.switch + ["transformer_2"] * (STEPS - sampler.switch)


def test_a_model_of_one_expert_never_switches():
    sampler = _backbone("wan2.1").sampler(STEPS, multistep=False)
    assert sampler.switch == STEPS


def test_the_lock_is_on_the_active_experts_layers():
    backbone = _backbone()
    for timestep, part in ((900.0, "transformer"), (100.0, "transformer_2")):
        blocks = getattr(backbone.pipe, part).blocks
        sites = backbone.attention_sites(torch.tensor(timestep))
        assert [site.module for site in sites] == [block.attn1 for block in blocks]


@pytest.mark.parametrize("row", ["wan2.2", "wan2.2-vace"])
def test_each_expert_has_its_own_guidance_as_in_the_stock_pipeline(row):
    tiny = TINY[row]
    pipe = tiny.pipe()
    backbone, request = family_named(row).adapter_class()(pipe, TEXT_LENGTH), tiny.request()
    plain = _config("plain", guidance_scale=4.0, guidance_scale_2=2.0, background_anchor="none")
    noise = branches_of(backbone, [request], plain).clips.start
    one, two = (
        tiny.stock(pipe, request, noise, _config("plain", guidance_scale=4.0), **more)
        for more in ({}, {"guidance_scale_2": 2.0})
    )
    latents = latents_of(backbone, [request], plain, SEQUENTIAL)
    assert torch.equal(latents, two) and not torch.equal(two, one)


def test_a_second_guidance_of_1_leaves_the_unconditional_branch_out_there():
    config = _config("plain", guidance_scale_2=1.0)
    steps = plan_steps(config, [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0], switch=4)
    assert [step.guided for step in steps] == [True] * 4 + [False] * 2
    assert [step.expert for step in steps] == [0] * 4 + [1] * 2


def test_kept_keys_and_values_are_not_handed_to_the_other_expert():
    """The source runs once in six steps, and again where the expert changes."""
    config = with_options(METHODS["drop-4"], dict(num_inference_steps=STEPS, source_refresh=6))
    backbone = _backbone()
    sampler = backbone.sampler(STEPS, multistep=False)
    plan = plan_steps(config, sampler.sigmas, sampler.switch)
    assert [s.index for s in plan if s.source] == [0, sampler.switch]
    every = with_options(config, dict(source_refresh=1))
    kept, fresh = (latents_of(backbone, [wide_request()], c) for c in (config, every))
    assert torch.isfinite(kept).all() and (kept - fresh).abs().max() > 0


class Part(nn.Module):
    """A part that notes where it is sent."""

    where = CPU

    def to(self, device):
        self.where = device
        return self


def test_with_model_offload_one_expert_is_there_at_a_time(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    parts = ("text_encoder", "vae", "transformer", "transformer_2")
    pipe = type("Pipe", (), {part: Part() for part in parts})()
    placement = Placement(pipe, GPU, "model")
    for part in (*parts, "vae"):
        placement.need(part)
        assert [p for p in parts if getattr(pipe, p).where == GPU] == [part]


@pytest.mark.parametrize("row", ["wan2.2", "wan2.2-vace"])
def test_group_offload_changes_nothing(row):
    tiny, settings = TINY[row], _config("rigid")
    adapter, pipe = family_named(row).adapter_class(), tiny.pipe()
    expected = latents_of(adapter(tiny.pipe(), TEXT_LENGTH), [tiny.request()], settings, BATCHED)
    backbone = adapter(pipe, TEXT_LENGTH, Placement(pipe, CPU, "group"))
    assert all(hasattr(block, "_diffusers_hook") for block in pipe.transformer_2.blocks)
    assert torch.equal(latents_of(backbone, [tiny.request()], settings, BATCHED), expected)


def test_the_small_model_gets_a_timestep_for_every_token(monkeypatch):
    backbone, seen = _backbone("wan2.2-5b"), []
    forward = backbone.pipe.transformer.forward

    def watched(**inputs):
        seen.append(inputs["timestep"])
        return forward(**inputs)

    monkeypatch.setattr(backbone.pipe.transformer, "forward", watched)
    latents = torch.randn(2, 48, 3, 4, 6)
    prompt = backbone.encode_prompt(["a dog", "a cat"])
    with torch.no_grad():
        backbone.predict(latents, torch.tensor([500.0, 500.0]), prompt, None)
    assert torch.equal(seen[0], torch.full((2, 3 * 2 * 3), 500.0))
