"""The branches one after the other are the batch: layer by layer, or a step's keys kept."""

import pytest
import torch

from kvlock.backbones.seam import attached
from kvlock.core import edit as kv_lock
from kvlock.core.config import KVLockConfig
from kvlock.core.fusion import fusion_weight
from kvlock.core.tap import HandOver
from kvlock.methods.catalogue import CALIBRATED, METHODS
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import with_options
from kvlock.methods.sequential import LayerHandOver, Sequential, StepHandOver
from support.draws import rand
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    STEPS,
    Unpacked,
    config,
    counted,
    latents_of,
    make_backbone,
    make_request,
    wide_request,
)

WAYS = {"layer by layer": lambda backbone: backbone, "a step's keys kept": Unpacked}
LOCKS = [m for m, c in METHODS.items() if isinstance(c, KVLockConfig) and c.lock and not c.drop]


@pytest.fixture(params=WAYS)
def as_seen(request):
    return WAYS[request.param]


@pytest.mark.parametrize("prompts", [("a red cat",) * 2, ("a red cat", "a blue dog")])
def test_both_ways_of_running_the_branches_agree(backbone, as_seen, prompts):
    requests = [make_request(0, prompts[0]), make_request(1, prompts[1])]
    batched = latents_of(backbone, requests, config(), BATCHED)
    sequential = latents_of(as_seen(backbone), requests, config(), SEQUENTIAL)
    torch.testing.assert_close(batched, sequential, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", LOCKS)
def test_every_lock_is_the_same_without_packed_forwards(backbone, method):
    options = dict(num_inference_steps=STEPS, threshold=0.02)
    options |= dict(usual=((0.0, 1.0),)) if method in CALIBRATED else {}
    settings, requests = with_options(METHODS[method], options), [wide_request()]
    batched = latents_of(backbone, requests, settings, BATCHED)
    kept = latents_of(Unpacked(backbone), requests, settings, SEQUENTIAL)
    torch.testing.assert_close(kept, batched, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("foreground_ratio", [0.0, 0.2])
def test_the_sources_keys_can_wait_for_the_edits_in_every_family(family, foreground_ratio):
    """Two sources first, then three edits of theirs; in one forward and in two."""
    sources, edits = family.draw(2), family.draw(3, seed=1)
    background, source_of = rand(3, family.tokens, seed=7) < 0.6, [1, 0, 1]
    ratios = torch.tensor([0.3, 1.0, 0.7])
    trunk = [site for site in family.sites if not site.control]
    tap = HandOver(background, foreground_ratio, torch.tensor(source_of))
    with attached(tap.weighted(ratios, sources=2), trunk):
        expected = family.forward(torch.cat([sources, edits]))[2:]
    plain = family.forward(edits)
    tap = StepHandOver(background)
    for _ in range(2):  # a second step is as the first
        with attached(tap.recording(), trunk):
            alone = family.forward(sources)
        assert torch.equal(alone, family.forward(sources))
        weight = fusion_weight(ratios, background, foreground_ratio)
        with attached(tap.fusing(weight, source_of), trunk):
            result = family.forward(edits)
        torch.testing.assert_close(result, expected, atol=5e-6, rtol=1e-4)
        tap.forget()
        assert all(x.key is None and x.value is None for x in tap.wrapped.values())
    assert (result - plain).abs().max() > 1e-5


def test_one_branch_is_in_a_forward_at_a_time(backbone):
    counts = counted(backbone)
    edit_clips(backbone, [make_request()], config("plain"), SEQUENTIAL)
    assert counts == [1] * 2 * STEPS
    counts.clear()
    edit_clips(backbone, [make_request()], config(), SEQUENTIAL)
    assert counts == [1] * 2 * 2 + [3] * 4
    unpacked = Unpacked(backbone)
    counts = counted(unpacked)
    edit_clips(unpacked, [make_request()], config(), SEQUENTIAL)
    assert counts == [1] * 2 * 2 + [1] * 3 * 4


def test_one_layers_keys_and_values_live_at_a_time(backbone, monkeypatch):
    held, leave = [], LayerHandOver.leave

    def noted(tap):
        held.append([x.name for x in tap.layers if x.key is not None or x.value is not None])
        leave(tap)
        assert all(x.key is None and x.value is None for x in tap.layers)

    monkeypatch.setattr(LayerHandOver, "leave", noted)
    edit_clips(backbone, [make_request()], config(), SEQUENTIAL)
    trunk = [f"blocks.{i}.attn1" for i in range(len(backbone.pipe.transformer.blocks))]
    assert [names for names in held if names] == [[name] for name in trunk] * 4


@pytest.mark.parametrize("failing", [5, 6])
def test_a_step_that_fails_leaves_no_keys_behind(failing):
    """The forwards of the first locked step: the source's, then the edit's two."""
    backbone, made, calls = Unpacked(make_backbone("wan")), [], []
    predict = backbone.predict

    def broken(*arguments):
        calls.append(1)
        result = predict(*arguments)
        return result if len(calls) < failing else 1 / 0

    backbone.predict = broken
    make = lambda branches: made.append(Sequential(branches)) or made[0]  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        kv_lock.edit_clips(backbone, [make_request()], config(), make_forwards=make)
    layers = made[0]._step_tap.wrapped.values()
    assert len(layers) == 2 and all(x.key is None and x.value is None for x in layers)
