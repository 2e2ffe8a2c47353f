"""AdaEdit's fade and the locks of the first steps alone."""

import pytest
import torch

from kvlock.contract.types import Measured
from kvlock.core.config import KVLockConfig, Lock
from kvlock.core.schedule import control_at, may_lock, plan_steps
from kvlock.methods.fading import fading_weight
from kvlock.methods.parts import Inject
from support import reference
from support.edits import EXECUTIONS, latents_of, make_request, short


def _alphas(config, measured=None):
    levels = torch.linspace(1, 0, config.num_inference_steps + 1).tolist()
    plan = plan_steps(config, levels)
    alphas = [float(control_at(config, s, measured, torch.zeros(1)).fusion_ratio) for s in plan]
    return alphas, [step.source for step in plan]


@pytest.mark.parametrize("kind", ["sigmoid", "cosine", "linear"])
@pytest.mark.parametrize("inject", [1, 4, 10])
def test_progressive_injection(kind, inject):
    lock = Lock(1.0, Inject(inject, kind))
    config = KVLockConfig(num_inference_steps=15, lock_steps=1.0, lock=lock)
    weights, sources = _alphas(config)
    assert weights == pytest.approx(reference.fading(kind, 15, inject))
    assert sources == [may_lock(config, step) for step in range(15)] == [w > 0 for w in weights]
    assert sum(weights) > 0 and weights[-1] == 0


@pytest.mark.parametrize("kind", ["sigmoid", "cosine", "linear"])
def test_over_no_steps_nothing_fades(kind):
    assert [fading_weight(kind, step, 0) for step in range(5)] == [0.0] * 5


def test_injection_ends():
    first = Inject(3)
    steady = KVLockConfig(num_inference_steps=10, lock_steps=1.0, lock=Lock(1.0, first))
    assert _alphas(steady)[0][:5] == [1, 1, 1, 0, 0]
    assert _alphas(steady)[1][:5] == [True, True, True, False, False]
    half = KVLockConfig(num_inference_steps=10, lock_steps=1.0, lock=Lock(0.5, first))
    assert _alphas(half)[0][:5] == [0.5, 0.5, 0.5, 0, 0]
    inside = Lock(0.5, Inject(3, foreground_ratio=0.1))
    inside = KVLockConfig(num_inference_steps=10, lock_steps=1.0, lock=inside)
    assert _alphas(inside)[1][:5] == [True, True, True, False, False]
    early = KVLockConfig(num_inference_steps=10, lock_steps=1.0, lock=Lock(injection=first))
    alphas, sources = _alphas(early, Measured(torch.tensor([1.0])))
    assert sources[:5] == [True, True, True, False, False]
    assert alphas[:6] == [1, 1, 1, 0, 0, 0]


def test_injection_and_the_last_steps_go_together():
    lock = Lock(1.0, Inject(6))
    config = KVLockConfig(num_inference_steps=10, lock_steps=6, lock=lock)
    assert _alphas(config)[0] == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_the_inside_of_the_mask_is_mixed_in_both_ways_of_running(backbone):
    request = make_request()

    def locked(injection):
        settings = KVLockConfig(6, lock_steps=1.0, lock=Lock(0.3, injection))
        return [latents_of(backbone, [request], settings, e) for e in EXECUTIONS]

    first, second = locked(Inject(foreground_ratio=0.2))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    without, _ = locked(None)
    assert (first - without).abs().max() > 1e-4


@pytest.mark.parametrize("method", ["progressive", "progressive-cosine", "progressive-linear"])
def test_a_faded_edit_is_neither_locked_nor_free(backbone, method):
    request = make_request()
    faded = latents_of(backbone, [request], short(method, inject_steps=4))
    for other in (short("plain", background_anchor="auto"), short("rigid", lock_steps=1.0)):
        assert (faded - latents_of(backbone, [request], other)).abs().max() > 1e-3
