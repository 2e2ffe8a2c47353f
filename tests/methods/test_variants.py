"""Edits of one clip share what is computed of the source."""

import dataclasses

import pytest
import torch

from kvlock.methods.parts import Inversion
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    STEPS,
    Unpacked,
    config,
    counted,
    dropped,
    latents_of,
    make_request,
    wide_request,
)

PROMPTS = ("a red cat", "a blue cat", "a blue dog")
ANCHORED = dict(background_anchor="latents")
LOCK, FREE = config(fusion_ratio=0.7, **ANCHORED), config("s-omega", **ANCHORED)
LATE = config(fusion_ratio=0.7, strength=0.7, **ANCHORED)
INVERTED = dataclasses.replace(LATE, source=dataclasses.replace(LATE.source, inversion=Inversion()))
CASES = {  # settings, execution, as the backbone is seen, forwards of the source
    "drop": (dropped(FREE), BATCHED, None, STEPS),
    "drop, refresh 2": (dropped(FREE, source_refresh=2), BATCHED, None, STEPS // 2),
    "lock": (LOCK, BATCHED, None, 4),
    "lock, layer by layer": (LOCK, SEQUENTIAL, None, 4),
    "lock, a step's keys kept": (LOCK, SEQUENTIAL, Unpacked, 4),
    "inverted": (INVERTED, BATCHED, None, 4 + STEPS + 1),
}


def _variants():
    return [
        dataclasses.replace(request, prompt=prompt, seed=seed, background_seed=9)
        for request in [wide_request()]
        for seed, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("case", CASES)
def test_variants_share_the_source_and_are_what_each_is_alone(backbone, case):
    settings, execution, seen, of_source = CASES[case]
    variants, backbone = _variants(), seen(backbone) if seen else backbone
    counts = counted(backbone)
    together = latents_of(backbone, variants, settings, execution)
    steps = STEPS - settings.first_step
    assert sum(counts) == 2 * len(variants) * steps + of_source
    alone = torch.cat([latents_of(backbone, [v], settings, execution) for v in variants])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


@pytest.mark.parametrize("execution", [BATCHED, SEQUENTIAL], ids=lambda e: e.branches)
@pytest.mark.parametrize("packs", [True, False], ids=["packs", "packs not"])
def test_variants_and_another_clip_in_one_batch(backbone, execution, packs):
    """Two sources in another order than their edits'."""
    backbone = backbone if packs else Unpacked(backbone)
    first, other = make_request(0), make_request(1)
    blue = dataclasses.replace(first, prompt="a blue cat", seed=3, background_seed=0)
    first = dataclasses.replace(first, background_seed=0)
    settings, requests = config(fusion_ratio=0.7), [other, first, blue]
    together = latents_of(backbone, requests, settings, execution)
    alone = torch.cat([latents_of(backbone, [r], settings, execution) for r in requests])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
