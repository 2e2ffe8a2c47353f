"""Costs counted without data, against the arithmetic of a transformer and against what really runs."""

import dataclasses
import math
import re

import pytest
import torch

from kvlock.backbones.known_models import KNOWN_MODELS
from kvlock.cli import main
from kvlock.core.config import KVLockConfig
from kvlock.cost.dry_run import denoising_cost, operations_of, peak_of
from kvlock.cost.estimate import Estimator, Place, centred_mask, device_bytes, settle
from kvlock.cost.rates import attention_rate, matmul_rate
from kvlock.cost.skeleton import assembled, skeleton
from kvlock.editing import edit_clips
from support import tiny
from support.edits import BACKBONES, STEPS, TEXT_LENGTH, config, make_request
from support.edits import counted as _counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny.vace_pipe().save_pretrained(root / "wan-vace")
    tiny.wan_pipe().save_pretrained(root / "wan")
    return root


def _estimator(folder, name):
    estimator = Estimator(str(folder / name), torch.float32)
    estimator.backbone.max_sequence_length = TEXT_LENGTH
    return estimator


def _forward_flops(architecture, *rows):
    """Of one forward, written out: multiplications and additions of rows of so many queries and keys."""
    text, patch = TEXT_LENGTH, math.prod(architecture.patch_size)
    width, feed = (
        architecture.num_attention_heads * architecture.attention_head_dim,
        architecture.ffn_dim,
    )
    control = len(architecture.get("vace_layers", []))
    layers = architecture.num_layers + control
    linear = (
        architecture.freq_dim * width + width**2 + width * 6 * width
    )  # the timestep's projections
    attention = 0
    for queries, keys in rows:
        linear += layers * (queries * (6 * width**2 + 2 * width * feed) + text * 2 * width**2)
        linear += queries * patch * width * (architecture.in_channels + architecture.out_channels)
        linear += text * (architecture.text_dim * width + width**2)
        if control:
            linear += queries * (
                patch * architecture.vace_in_channels * width + (control + 1) * width**2
            )
        attention += 2 * layers * queries * (keys + text) * width
    return 2 * linear, 2 * attention


@pytest.mark.parametrize("name", BACKBONES)
def test_operations_are_those_of_the_arithmetic(folder, name):
    estimator = _estimator(folder, name)
    architecture, mask = (
        estimator.backbone.pipe.transformer.config,
        torch.zeros(3, 4, 4, dtype=torch.bool),
    )
    mask[:, :2, :2] = True  # a quarter of the 12 tokens
    plain = estimator.cost(mask, config("plain", rows="sequential"))
    linear, attention = _forward_flops(architecture, (12, 12))
    assert (plain.rows, plain.linear_flops, plain.attention_flops) == (
        2 * STEPS,
        12 * linear,
        12 * attention,
    )
    fields = dict(
        drop_background="all", drop_margin=0, source_refresh=3, guidance_interval=(0.0, 0.0)
    )
    dropped = estimator.cost(mask, config("rigid", **fields))
    fresh, held = (
        _forward_flops(architecture, (12, 12), (3, 12)),
        _forward_flops(architecture, (3, 12)),
    )
    assert dropped.rows == STEPS + 2
    assert (dropped.linear_flops, dropped.attention_flops) == tuple(
        2 * f + 4 * h for f, h in zip(fresh, held)
    )


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(rows="sequential"),
        dict(drop_background="locked", source_refresh=2),
        dict(guidance_interval=(0.0, 0.9)),
    ],
    ids=["batched", "sequential", "drop", "interval"],
)
def test_rows_are_those_that_run(folder, fields):
    cls, pipe = BACKBONES["wan-vace"]
    backbone, settings = cls(pipe(), TEXT_LENGTH), config("kv-only", **fields)
    rows = _counted(backbone)
    edit_clips(backbone, [make_request()], settings)
    assert _estimator(folder, "wan-vace").cost(
        torch.ones(3, 4, 4, dtype=torch.bool), settings
    ).rows == sum(rows)


def test_memory_is_what_is_alive_at_once():
    weight = torch.empty(8, 8, device="meta")

    def two_then_one():
        rows = torch.empty(4, 8, device="meta")  # 128 bytes
        both = (rows @ weight.t()) + rows  # two of them more while the sum is made
        del rows
        return both[:, :4].contiguous()  # half of one

    assert peak_of(two_then_one) == 3 * 128
    assert operations_of(two_then_one) == (2 * 4 * 8 * 8, 0)


def test_the_low_memory_form_and_dropping_take_less():
    architecture = dict(num_attention_heads=2, attention_head_dim=48, ffn_dim=384, num_layers=3)
    backbone = assembled("wan", architecture | {"text_dim": 32}, {}, "meta", torch.float32)
    mask = centred_mask((3, 32, 32), (1, 2, 2), 0.2)
    fields = {
        "plain": dict(drop_background="none", fusion_ratio=0.0, rows="sequential"),
        "lean": dict(),
        "low": dict(rows="sequential"),
        "drop": dict(drop_background="all"),
        "held": dict(drop_background="all", source_refresh=3),
        "host": dict(drop_background="all", source_refresh=3, source_store="host"),
    }
    cost = {
        name: denoising_cost(backbone, mask, config("rigid", **f)) for name, f in fields.items()
    }
    assert cost["plain"].peak_bytes < cost["low"].peak_bytes < cost["lean"].peak_bytes
    assert cost["drop"].linear_flops < cost["plain"].linear_flops < cost["lean"].linear_flops
    assert cost["host"].peak_bytes == cost["drop"].peak_bytes < cost["held"].peak_bytes
    several = denoising_cost(backbone, mask, config("rigid", drop_background="all"), variants=4)
    assert (
        several.rows == STEPS * (1 + 4 * 2) and several.linear_flops < 4 * cost["drop"].linear_flops
    )


@pytest.mark.parametrize("known", [m for m in KNOWN_MODELS if not m.packaged], ids=lambda m: m.name)
def test_a_known_models_architecture_has_its_parameters(known):
    transformer = skeleton(known.name).pipe.transformer
    assert transformer.device.type == "meta" and transformer.dtype == torch.bfloat16
    assert sum(p.numel() for p in transformer.parameters()) / 1e6 == pytest.approx(
        known.parameters, abs=1
    )
    assert (
        type(skeleton(known.name)).__name__
        == {"wan": "WanBackbone", "wan-vace": "WanVACEBackbone"}[known.family]
    )


def test_the_weights_of_a_known_model_are_what_the_table_says():
    known = next(m for m in KNOWN_MODELS if m.name == "wan2.1-t2v-1.3b")
    estimator = Estimator(known.name, torch.bfloat16)
    nothing = KVLockConfig(num_inference_steps=1, guidance_scale=1.0, fusion_ratio=0.0)
    peak = estimator.peak_bytes(
        estimator.cost(torch.ones(1, 2, 2, dtype=torch.bool), nothing), (1, 16, 16), False
    )
    assert peak / 1e9 == pytest.approx(known.weights_gb, abs=0.1)


def test_what_does_not_fit_is_refused_with_what_would(folder, monkeypatch):
    estimator, mask = _estimator(folder, "wan-vace"), centred_mask((3, 24, 24), (1, 2, 2), 0.2)
    place, settings = Place(torch.device("cuda"), (9, 192, 192), mask), config("drop-4")

    def need_of(settings, offload=False):
        return estimator.need(settings, dataclasses.replace(place, offload=offload))

    def need(offload=False, **fields):
        return need_of(config("drop-4", **fields), offload)

    def room(size):
        monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: size)

    def refused(settings, given, room_for, *flags):
        room(room_for)
        with pytest.raises(
            ValueError, match="the edit needs about .* GB on cuda, which has .*--no-memory-check"
        ) as e:
            settle(estimator, settings, given, place)
        assert all(f"try {flag}" in str(e.value) for flag in flags)

    room(need())
    assert settle(estimator, settings, set(), place) == settings
    monkeypatch.setattr(Estimator, "_vae_peak", lambda self, size: 0 if self.tiled else 100)
    assert need(source_store="host") < need()
    room(need() - 1)
    assert settle(estimator, settings, set(), place).source_store == "host"
    refused(
        settings, {"source_store"}, need(source_store="host"), "--source-store host, which needs"
    )
    refused(settings, set(), need(source_store="host", offload=True), "--offload, which needs")
    monkeypatch.setattr(Estimator, "_vae_peak", lambda self, size: 10**9 * (2 - self.tiled))
    refused(settings, set(), need() - 1, "--tile-vae, which needs")
    tiled = Estimator(estimator.model, torch.float32, tile_vae=True)
    refused(settings, set(), tiled.need(settings, place) - 1, "--tile-vae --offload, which needs")
    refused(settings, set(), 1, "a shorter or smaller clip")
    cpu = dataclasses.replace(place, device=torch.device("cpu"))
    room(tiled.need(settings, place) - 1)
    with pytest.raises(ValueError, match="on cpu, .* try a shorter"):
        settle(tiled, settings, set(), cpu)
    room(10**12)
    monkeypatch.setattr("kvlock.cost.estimate.SMALL_BATCH_BYTES", 0)
    assert settle(estimator, settings, set(), place).rows == "sequential"
    assert settle(estimator, settings, {"rows"}, place).rows == "batched"


def test_a_batch_that_does_not_fit_is_told_to_go_row_by_row(monkeypatch):
    estimator, size = Estimator("wan2.1-t2v-1.3b", torch.bfloat16), (9, 480, 832)
    place = Place(torch.device("cuda"), size, centred_mask((3, 60, 104), (1, 2, 2), 0.2))
    monkeypatch.setattr(Estimator, "_vae_peak", lambda self, size: 0)
    low = estimator.need(config(rows="sequential"), place)
    monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: low)
    with pytest.raises(ValueError, match="try --rows sequential, which needs"):
        settle(estimator, config(), {"rows"}, place)


def test_estimate_prints_every_mode(folder, capsys):
    words = [
        "estimate",
        "--model",
        str(folder / "wan-vace"),
        "--size",
        "64x48",
        "--frames",
        "9",
        "--steps",
        "4",
    ]
    assert main([*words, "--device", "cpu", "--variants", "2"]) == 0
    said = capsys.readouterr().out
    assert all(mode in said for mode in ("plain", "kv-lock", "drop-4", "fast", "GB", "TFLOP/s"))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (
            ("--frames", "10"),
            "48 and 10 frames do not suit .*expected sides that divide by 16 and 16, and 4n",
        ),
        (("--size", "keep"), "--size is 'keep'; expected WIDTHxHEIGHT"),
        (("--foreground", "0"), "--foreground is 0.0; expected a share above 0, at most 1"),
        (("--variants", "0"), "--variants is 0; expected 1 or more"),
        (("--model", "nobody"), "neither a known name"),
    ],
)
def test_estimate_refuses_in_one_sentence(folder, capsys, flags, sentence):
    words = [
        "estimate",
        "--model",
        str(folder / "wan-vace"),
        "--size",
        "64x48",
        "--frames",
        "9",
        *flags,
    ]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(sentence, said) and len(said.splitlines()) == 1


def test_rates_are_numbers_of_this_device():
    cpu = torch.device("cpu")
    assert (
        matmul_rate(cpu, torch.float32, 64, 32) > 0
        and attention_rate(cpu, torch.float32, 64, 2, 16) > 0
    )
    assert device_bytes(cpu) > 1e9
