"""Packed forwards of a Wan transformer against its plain ones."""

import dataclasses

import pytest
import torch

from kvlock.contract.backbone import PackedBranch
from kvlock.contract.types import Prompt
from kvlock.core.clips import prepare_clips
from kvlock.core.mask import token_foreground
from kvlock.methods.edit import edit_clips
from kvlock.methods.sequential import LayerHandOver
from support.edits import (
    BACKBONES,
    SEQUENTIAL,
    STEPS,
    config,
    dropped,
    latents_of,
    make_backbone,
    make_request,
    wide_request,
)


@torch.no_grad()
def test_packed_branches_of_different_prompts_equal_plain_forwards(backbone):
    clips = prepare_clips(backbone, [wide_request()])
    sampler = backbone.sampler(STEPS, multistep=False)
    tokens = torch.arange(token_foreground(clips.foreground, backbone.patch_size).numel())
    short = Prompt((backbone.encode_prompt(["a dog"]).parts[0][:, :9],))
    prompts = [short, backbone.encode_prompt(["a red cat"])]
    branches = [
        PackedBranch(latents, prompt, clips.condition, tokens)
        for latents in (clips.noise, clips.source)
        for prompt in prompts
    ]
    nothing = torch.zeros(1, len(tokens), dtype=torch.bool)
    tap = LayerHandOver(nothing).weighted([torch.zeros(1, len(tokens), 1)] * 3)
    timestep = sampler.timestep(2)
    with backbone.tapped(tap, timestep, control=True):
        packed = backbone.predict_packed(branches, timestep, tap)
    for branch, output in zip(branches, packed):
        plain = backbone.predict(branch.latents, timestep[None], branch.prompt, branch.condition)
        torch.testing.assert_close(output, plain, atol=2e-6, rtol=1e-5)


def test_rotating_heads_in_groups_changes_no_bit(backbone, monkeypatch):
    settings = dropped(config("s-omega"))
    whole = latents_of(backbone, [wide_request()], settings)
    monkeypatch.setattr("kvlock.backbones.wan.packing.MANY_TOKENS", 0)
    assert torch.equal(latents_of(backbone, [wide_request()], settings), whole)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("how", ["drop", "lock"])
def test_an_exception_in_a_packed_forward_leaves_the_model_as_it_was(name, how):
    backbone, request = make_backbone(name), wide_request()
    transformer = backbone.pipe.transformer
    before = dict(transformer.named_modules())
    processors = [s.module.processor for s in backbone.attention_sites(torch.tensor(0.0))]
    broken = transformer.blocks[-1].register_forward_pre_hook(lambda *_: 1 / 0)
    settings = dropped(config("s-omega")) if how == "drop" else config(lock_steps=1.0)
    with pytest.raises(ZeroDivisionError):
        edit_clips(backbone, [request], settings, SEQUENTIAL)
    broken.remove()
    assert dict(transformer.named_modules()) == before
    after = [s.module.processor for s in backbone.attention_sites(torch.tensor(0.0))]
    assert all(a is b for a, b in zip(after, processors))
    expected = latents_of(make_backbone(name), [request], config())
    assert torch.equal(latents_of(backbone, [request], config()), expected)


def test_tokens_that_do_not_go_through_are_zero(backbone):
    clips = prepare_clips(backbone, [make_request()])
    timestep = backbone.sampler(STEPS, multistep=False).timestep(2)
    some = torch.tensor([1, 2, 7])
    branch = PackedBranch(clips.noise, clips.prompt, clips.condition, some)
    tap = LayerHandOver(torch.zeros(1, 12, dtype=torch.bool)).weighted([])
    with torch.no_grad(), backbone.tapped(tap, timestep, control=True):
        output = backbone.predict_packed([branch], timestep, tap)[0]
    through = torch.zeros(3, 2, 2, dtype=torch.bool)
    through.view(-1)[some] = True
    latents = through.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    moved = (output != 0).any(dim=1)[0]
    assert torch.equal(moved, latents)
    whole = dataclasses.replace(branch, tokens=torch.arange(12))
    with torch.no_grad(), backbone.tapped(tap, timestep, control=True):
        all_tokens = backbone.predict_packed([whole], timestep, tap)[0]
    assert not torch.allclose(output[:, :, latents], all_tokens[:, :, latents])  # attention is less
