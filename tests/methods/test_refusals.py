"""What a family cannot run is refused by name, with the reason."""

import pytest
import torch

from kvlock.backbones.families import family_named
from kvlock.contract.types import EditRequest
from kvlock.methods.catalogue import METHODS, method_config
from kvlock.methods.edit import edit_clips
from kvlock.methods.refusals import refusal
from support.edits import make_backbone
from support.pipes import PIPES
from support.tiny_family import TEXT_LENGTH

TINY = {tiny.row: tiny for tiny in PIPES}


def _backbone(row):
    return family_named(row).adapter_class()(TINY[row].pipe(), TEXT_LENGTH)


def _refused(backbone, **options):
    asked = {"guidance_scale": options["guidance_scale"]} if options else {}
    return {m for m, c in METHODS.items() if refusal(_with(m, c, asked), backbone)}


def _with(method, config, asked):
    return config if method.startswith("calibrated") else method_config(method, {}, asked)


def test_wan_runs_every_method():
    assert _refused(make_backbone("wan")) == set()


def test_a_model_of_another_prediction_runs_nothing_that_goes_by_velocities():
    drops = {m for m in METHODS if getattr(METHODS[m], "drop", None)}
    refused = _refused(_backbone("cogvideox"))
    flows = {m for m in METHODS if m.startswith("flowedit")}
    assert refused == {*flows, "proedit", "cfg-zero-star", *drops}


def test_embedded_guidance_leaves_nothing_to_methods_that_only_guide():
    backbone = _backbone("hunyuan-video")
    guide = {"omega-only", "s-only", "s-omega", "apg", "cfg-zero-star"}
    embedded = {
        m for m in guide if refusal(method_config(m, {"guidance_scale": 1.0}, {}), backbone)
    }
    assert embedded == guide
    assert not guide & _refused(backbone)  # at the paper's scale there is a second branch


@pytest.mark.parametrize(
    "row, method, reason",
    [
        ("cogvideox", "flowedit", "FlowEdit goes by velocities of flow matching"),
        ("cogvideox", "proedit", "the inversion goes by velocities"),
        ("cogvideox", "cfg-zero-star", "zero_init_steps=0.04 goes by velocities"),
        ("ltx", "drop", "cannot drop the background yet; take a method that does not"),
        ("ltx", "flowedit-drop", "cannot drop the background yet; take a method that does not"),
    ],
)
def test_it_is_refused_before_anything_is_encoded(row, method, reason):
    request = EditRequest(torch.zeros(1), torch.zeros(1), "")  # which encoding would not survive
    with pytest.raises(ValueError, match=reason):
        edit_clips(_backbone(row), [request], METHODS[method])
