"""Which parts of a model are on the device together, without a device: what is moved is noted."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload_with_hook
from torch import nn

from kvlock.backbones.loading import load_backbone
from kvlock.backbones.placement import CPU, Placement
from kvlock.methods.edit import edit_clips
from support import newcomer, tiny
from support.edits import (
    BACKBONES,
    BATCHED,
    SEQUENTIAL,
    TEXT_LENGTH,
    config,
    dropped,
    latents_of,
    make_backbone,
    make_request,
    short,
)

GPU = torch.device("cuda")
PARTS = ("text_encoder", "transformer", "vae")
WAYS = {
    "lock": (config("rigid"), BATCHED),
    "lock, sequential": (config("rigid"), SEQUENTIAL),
    "drop": (dropped(config("s-omega"), source_refresh=2), BATCHED),
    "inversion": (short("proedit"), BATCHED),
    "flowedit": (short("flowedit"), BATCHED),
}


class Part(nn.Module):
    """A part of a pipeline that notes where it is sent instead of going there."""

    def __init__(self):
        super().__init__()
        self.where = CPU

    def to(self, device):
        self.where = device
        return self


@pytest.fixture
def pipe(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return SimpleNamespace(**{part: Part() for part in PARTS})


def _there(pipe):
    return {part for part in PARTS if getattr(pipe, part).where == GPU}


def test_the_text_encoder_is_never_there_with_the_others(pipe):
    placement, seen = Placement(pipe, GPU), []
    for part in ("text_encoder", "vae", "transformer", "vae", "text_encoder", "transformer"):
        placement.need(part)
        assert getattr(pipe, part).where == GPU
        seen.append(_there(pipe))
    together = {"transformer", "vae"}
    assert seen == [
        {"text_encoder"},
        {"vae"},
        together,
        together,
        {"text_encoder"},
        {"transformer"},
    ]


def test_with_model_offload_one_part_is_there_at_a_time(pipe):
    placement = Placement(pipe, GPU, "model")
    for part in ("text_encoder", "vae", "transformer", "transformer", "vae", "text_encoder"):
        placement.need(part)
        assert _there(pipe) == {part}


def test_a_part_that_is_there_is_not_moved_again(pipe):
    placement = Placement(pipe, GPU)
    placement.need("transformer")
    pipe.transformer.where = "untouched"
    placement.need("transformer")
    assert pipe.transformer.where == "untouched"


def test_nothing_moves_on_the_cpu_nor_without_a_device(pipe):
    for placement in (Placement(pipe, CPU), Placement(pipe)):
        for part in PARTS:
            placement.need(part)
        assert _there(pipe) == set()
    assert Placement(tiny.vace_pipe()).device == CPU


class Noting(Placement):
    """A placement that notes what was needed, in runs."""

    def __init__(self):
        self.needed = []

    device = CPU

    def need(self, part):
        if self.needed[-1:] != [part]:
            self.needed.append(part)


@pytest.mark.parametrize("name", [*BACKBONES, "newcomer"])
@pytest.mark.parametrize("way", WAYS)
def test_prompts_are_encoded_before_anything_else_runs(name, way, monkeypatch):
    settings, execution = WAYS[way]
    placement = Noting()
    if name == "newcomer":
        if way == "drop":
            pytest.skip("without packed forwards nothing is dropped")
        monkeypatch.setattr("kvlock.backbones.families.FAMILIES", newcomer.ROWS)
        backbone = newcomer.Newcomer(newcomer.pipe(), TEXT_LENGTH, placement)
    else:
        cls, make = BACKBONES[name]
        backbone = cls(make(), TEXT_LENGTH, placement)
    edit_clips(backbone, [make_request()], settings, execution)
    assert placement.needed == ["text_encoder", "vae", "transformer", "vae"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BACKBONES)
def test_group_offload_changes_nothing(name, way):
    settings, execution = WAYS[way]
    expected = latents_of(make_backbone(name), [make_request()], settings, execution)
    cls, make = BACKBONES[name]
    pipe = make()
    backbone = cls(pipe, TEXT_LENGTH, Placement(pipe, CPU, "group"))
    assert all(hasattr(block, "_diffusers_hook") for block in pipe.transformer.blocks)
    assert torch.equal(latents_of(backbone, [make_request()], settings, execution), expected)


@pytest.mark.parametrize("way", ["lock", "lock, sequential", "drop"])
def test_a_pipeline_whose_owner_offloads_it_is_left_to_its_hooks(way):
    """What enable_model_cpu_offload puts on each component, with the CPU as the device."""
    settings, execution = WAYS[way]
    backbone = make_backbone("wan-vace")
    expected = latents_of(backbone, [make_request()], settings, execution)
    hook = None
    for part in PARTS:
        _, hook = cpu_offload_with_hook(getattr(backbone.pipe, part), CPU, prev_module_hook=hook)
    assert backbone.device == CPU
    assert torch.equal(latents_of(backbone, [make_request()], settings, execution), expected)


def test_a_loaded_model_waits_on_the_cpu_until_it_is_needed(tmp_path, monkeypatch):
    tiny.vace_pipe().save_pretrained(tmp_path / "m")
    monkeypatch.setattr("kvlock.backbones.loading.resolve_device", lambda device: GPU)
    backbone = load_backbone(str(tmp_path / "m"), device="cuda", dtype="float32", offload="model")
    assert backbone.device == GPU
    assert {getattr(backbone.pipe, part).device for part in PARTS} == {CPU}
