"""Costs counted without data, against the arithmetic of a transformer and against what really runs."""

import math
from dataclasses import replace

import pytest
import torch

from kvlock.backbones.families import WAN_T2V
from kvlock.core.config import KVLockConfig
from kvlock.cost.dry_run import Cost, denoising_costs, total
from kvlock.cost.estimate import HEADROOM, Estimator, centred_mask
from kvlock.cost.skeleton import FLOW_MATCHING, Configs, assembled, skeleton
from kvlock.methods.catalogue import METHODS
from kvlock.methods.edit import edit_clips
from support.edits import (
    BACKBONES,
    BATCHED,
    EXECUTIONS,
    SEQUENTIAL,
    STEPS,
    TEXT_LENGTH,
    config,
    counted,
    dropped,
    make_backbone,
    make_request,
    short,
)

RIGID, FREE = config("rigid", lock_steps=1.0), config("s-omega")


def _skeleton(folder):
    backbone = skeleton(folder, "meta", torch.float32)
    backbone.max_sequence_length = TEXT_LENGTH
    return backbone


def _cost(backbone, foreground, settings, execution=BATCHED, variants=1):
    return total(denoising_costs(backbone, foreground, settings, execution, variants))


def _forward_flops(architecture, *branches):
    """Of one forward, written out; branches: so many queries and keys each."""
    text, patch = TEXT_LENGTH, math.prod(architecture.patch_size)
    width = architecture.num_attention_heads * architecture.attention_head_dim
    control = len(architecture.get("vace_layers", []))
    layers = architecture.num_layers + control
    block = 6 * width**2 + 2 * width * architecture.ffn_dim
    ends = patch * width * (architecture.in_channels + architecture.out_channels)
    if control:
        ends += patch * architecture.vace_in_channels * width + (control + 1) * width**2
    linear = architecture.freq_dim * width + width**2 + width * 6 * width  # of the timestep
    attention = 0
    for queries, keys in branches:
        linear += layers * (queries * block + text * 2 * width**2) + queries * ends
        linear += text * (architecture.text_dim * width + width**2)
        attention += 2 * layers * queries * (keys + text) * width
    return 2 * linear, 2 * attention


@pytest.mark.parametrize("name", BACKBONES)
def test_operations_are_those_of_the_arithmetic(folders, name):
    backbone = _skeleton(folders[name])
    architecture = backbone.pipe.transformer.config
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, :2, :2] = True  # a quarter of the 12 tokens
    plain = _cost(backbone, mask, config("plain"), SEQUENTIAL)
    linear, attention = _forward_flops(architecture, (12, 12))
    forwards = 2 * STEPS
    assert plain.branches == forwards
    assert (plain.linear_flops, plain.attention_flops) == (forwards * linear, forwards * attention)
    settings = dropped(
        config("plain", guidance_interval=(0.0, 0.0)), drop_margin=0, source_refresh=3
    )
    cost = _cost(backbone, mask, settings)
    fresh = _forward_flops(architecture, (12, 12), (3, 12))
    held = _forward_flops(architecture, (3, 12))
    assert cost.branches == STEPS + 2
    expected = tuple(2 * f + (STEPS - 2) * h for f, h in zip(fresh, held))
    assert (cost.linear_flops, cost.attention_flops) == expected


METHODS_COUNTED = {
    "plain": config("plain"),
    "rigid": RIGID,
    "interval": config("rigid", guidance_interval=(0.0, 0.9)),
    "drop": dropped(FREE, source_refresh=2),
    "proedit": short("proedit"),
    "sdedit": short("sdedit", strength=0.5),
    "flowedit": short("flowedit"),
    "flowedit-drop": short("flowedit-drop"),
    "flowedit unguided": short("flowedit", guidance_scale=1.0, num_noises=2),
}


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.branches)
@pytest.mark.parametrize("method", METHODS_COUNTED)
def test_branches_are_those_that_run(folders, method, execution):
    backbone, settings = make_backbone("wan-vace"), METHODS_COUNTED[method]
    ran = counted(backbone)
    edit_clips(backbone, [make_request()], settings, execution)
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    assert _cost(_skeleton(folders["wan-vace"]), mask, settings, execution).branches == sum(ran)


SMALL = dict(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, text_dim=32)


def test_variants_share_the_source():
    backbone = assembled(
        WAN_T2V,
        Configs(dict(num_layers=1, **SMALL), {}, FLOW_MATCHING, {}),
        "meta",
        torch.float32,
    )
    mask = centred_mask((3, 8, 8), (1, 2, 2), 0.3)
    one, four = (_cost(backbone, mask, dropped(FREE), variants=n) for n in (1, 4))
    assert one.branches == STEPS * (1 + 2) and four.branches == STEPS * (1 + 4 * 2)
    assert four.linear_flops < 4 * one.linear_flops
    flow = short("flowedit")
    one, four = (_cost(backbone, mask, flow, variants=n) for n in (1, 4))
    assert four == one.times(4) and four.peak_bytes == one.peak_bytes


def test_the_low_memory_form_and_dropping_take_less():
    architecture = dict(num_attention_heads=2, attention_head_dim=48, ffn_dim=384, num_layers=3)
    configs = Configs(architecture | {"text_dim": 32}, {}, FLOW_MATCHING, {})
    backbone = assembled(WAN_T2V, configs, "meta", torch.float32)
    mask = centred_mask((3, 32, 32), (1, 2, 2), 0.2)
    ways = {
        "plain": (config("plain"), SEQUENTIAL),
        "lock": (RIGID, BATCHED),
        "layer by layer": (RIGID, SEQUENTIAL),
        "drop": (dropped(FREE), BATCHED),
        "held": (dropped(FREE, source_refresh=3), BATCHED),
    }
    cost = {name: _cost(backbone, mask, *way) for name, way in ways.items()}
    peaks = {name: c.peak_bytes for name, c in cost.items()}
    assert peaks["plain"] < peaks["layer by layer"] < peaks["lock"]
    assert peaks["drop"] < peaks["held"]
    assert cost["drop"].linear_flops < cost["plain"].linear_flops < cost["lock"].linear_flops


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda e: e.branches)
@pytest.mark.parametrize("method", ["kv-lock", "fast", "plain", "flowedit", "flowedit-drop"])
def test_what_a_few_layers_cost_tells_what_all_cost(folders, method, execution):
    """Operations to the last; memory to within the headroom, where few tokens are held."""
    estimator = Estimator(folders["deep"], torch.float32)
    estimator.backbone.max_sequence_length = TEXT_LENGTH
    assert [b.pipe.transformer.config.num_layers for b in estimator._shallow] == [4, 6]
    mask = centred_mask((5, 24, 24), (1, 2, 2), 0.2)
    whole = total(denoising_costs(estimator.backbone, mask, METHODS[method], execution))
    few = estimator.cost(mask, METHODS[method], execution)
    assert replace(few, peak_bytes=0) == replace(whole, peak_bytes=0)
    assert (1 - HEADROOM) * whole.peak_bytes <= few.peak_bytes <= whole.peak_bytes


def test_costs_add_and_repeat():
    one, other = Cost(1, 10, 100, 7), Cost(2, 20, 200, 5)
    assert one + other == Cost(3, 30, 300, 7)
    assert one.times(3) == Cost(3, 30, 300, 7)
    assert Cost(2, 14, 130, 9).deeper(Cost(2, 10, 100, 7), 5) == Cost(2, 34, 280, 19)


def test_an_unguided_lock_without_steps_to_lock_costs_one_branch_a_step(folders):
    nothing = KVLockConfig(num_inference_steps=4, lock_steps=0)
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    assert _cost(_skeleton(folders["wan"]), mask, nothing).branches == 8
