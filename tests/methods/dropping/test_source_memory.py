"""What is held of the source: where, how much, and until when."""

import dataclasses
import gc
import weakref

import pytest
import torch

from kvlock.methods.dropping.source_memory import SourceMemory
from kvlock.methods.edit import edit_clips
from kvlock.methods.execution import Execution
from kvlock.methods.sequential import LayerHandOver, StepHandOver
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    Unpacked,
    config,
    dropped,
    latents_of,
    wide_request,
)

HOST = Execution(source_store="host")


@pytest.mark.parametrize("options", [dict(), dict(background_context=0.4)], ids=["all", "some"])
@pytest.mark.parametrize("refresh", [1, 3])
def test_where_the_source_is_held_changes_nothing(backbone, refresh, options):
    request = wide_request()
    requests = [request, dataclasses.replace(request, prompt="a blue cat"), wide_request(1)]
    settings = dropped(config("s-omega"), source_refresh=refresh, **options)
    device, host = (latents_of(backbone, requests, settings, e) for e in (BATCHED, HOST))
    assert torch.equal(device, host)


def _refs_during(monkeypatch, backbone, settings, execution):
    """Weak references to every tap that has keys and values, and to these, as they are made."""
    taps, tensors = {}, []
    for kind in (SourceMemory, LayerHandOver, StepHandOver):
        through = kind.through

        def noted(tap, layer, name, tokens, through=through):
            result = through(tap, layer, name, tokens)
            taps[id(tap)] = weakref.ref(tap)
            if getattr(layer, name) is not None:
                tensors.append(weakref.ref(getattr(layer, name)))
            return result

        monkeypatch.setattr(kind, "through", noted)
    alive, decode = [], backbone.decode_video

    def decoding(latents):
        alive.append(
            (sum(r() is not None for r in taps.values()), sum(r() is not None for r in tensors))
        )
        return decode(latents)

    backbone.decode_video = decoding
    gc.disable()
    try:
        edit_clips(backbone, [wide_request()], settings, execution)
    finally:
        gc.enable()
    return taps, tensors, alive


@pytest.mark.parametrize(
    "how",
    ["drop", "held for 2 steps", "held on the host", "layer by layer", "a step's keys"],
)
def test_what_is_held_is_gone_before_the_decoder_runs(backbone, how, monkeypatch):
    held = dropped(config("s-omega"), source_refresh=2)
    settings, execution, seen = {
        "drop": (dropped(config("s-omega")), BATCHED, backbone),
        "held for 2 steps": (held, BATCHED, backbone),
        "held on the host": (held, HOST, backbone),
        "layer by layer": (config(), SEQUENTIAL, backbone),
        "a step's keys": (config(), SEQUENTIAL, Unpacked(backbone)),
    }[how]
    taps, tensors, alive = _refs_during(monkeypatch, seen, settings, execution)
    assert taps and tensors and alive == [(0, 0)]


def test_only_the_context_is_held_between_steps(backbone, monkeypatch):
    """And on the host, without the room for an edit's own."""
    sizes, extending = [], SourceMemory.extending

    def seen(memory, backbone, timestep, context, size, clip, first, keep):
        held = memory.held.get(clip, [])
        sizes.append((first, {x.shape[1] for pair in held for x in pair}, len(context), size))
        return extending(memory, backbone, timestep, context, size, clip, first, keep)

    monkeypatch.setattr(SourceMemory, "extending", seen)
    settings = dropped(config("s-omega"), source_refresh=2, background_context=0.4)
    for execution in (BATCHED, HOST):
        sizes.clear()
        edit_clips(backbone, [wide_request()], settings, execution)
        firsts, held = [s[0] for s in sizes], [s[1] for s in sizes]
        context, size = sizes[0][2:]
        assert firsts == [True, False] * 3 and 0 < context < 18
        room = 0 if execution is HOST else size
        assert held[0] == set() and held[1::2] == [{context + room}] * 3
    once = dropped(config("s-omega"))
    sizes.clear()
    edit_clips(backbone, [wide_request()], once)
    assert [s[1] for s in sizes] == [set()] * 6
