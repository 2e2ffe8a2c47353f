"""The calibrated schedules: their equations, and whole edits against a slow loop."""

import pytest
import torch

from kvlock.contract.types import Measured
from kvlock.core.config import KVLockConfig, Lock, Signal
from kvlock.core.variance import Window, measure, windowed_variance
from kvlock.methods.calibrated import nearby_variance, path_variance, usual_variance
from kvlock.methods.catalogue import CALIBRATED, METHODS, method_config
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import flat, watches_variance
from kvlock.methods.parts import Calibration
from support import reference
from support.draws import randn
from support.edits import OMEGA, STEPS, World, latents_of, make_request, short

USUAL = ((1.0, 0.5), (0.9, 0.004), (0.6, 0.02), (0.2, 0.01))


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2, 0.3, 0.6, 0.75, 0.9, 0.95, 1.0])
def test_what_is_usual_between_the_measured_levels(sigma):
    expected = reference.usual_variance(USUAL, sigma)
    assert usual_variance(USUAL, sigma) == pytest.approx(expected)
    assert usual_variance(USUAL[::-1], sigma) == usual_variance(USUAL, sigma)


def test_without_a_table_nothing_is_usual():
    with pytest.raises(ValueError, match="^usual is \\(\\); expected .* kvlock calibrate MODEL"):
        usual_variance((), 0.5)


@pytest.mark.parametrize("steps", [6, 20, 50])
def test_a_steady_drift_is_the_same_at_any_number_of_steps(steps):
    """Where predictions move with the level, variance per that of the levels is drift squared."""
    sigmas, drift = torch.linspace(1, 0, steps + 1).double().pow(0.5), randn(1, 3, 1, 4, 4)
    window = slice(steps // 3, steps // 3 + max(2, steps // 6))
    predictions = tuple(float(s) * drift for s in sigmas[window])
    region = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    rate = windowed_variance(predictions, region) / path_variance(sigmas[window].tolist())
    torch.testing.assert_close(rate, drift.square().mean()[None], rtol=1e-3, atol=0)


@pytest.mark.parametrize("width", [0.6, 1.5])
@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 1, 2)])
def test_variance_around_each_token(width, patch):
    predictions = tuple(randn(2, 3, 2, 6, 8, seed=i) for i in range(4))
    region = torch.zeros(2, 2, 6, 8, dtype=torch.bool)
    region[0, :, 1:3, 2:5], region[1, 0, 4:, 6:] = True, True
    variance, nearness = nearby_variance(predictions, region, width, patch)
    for clip in range(2):
        seen = [p[clip] for p in predictions]
        slow = reference.nearby_variance(seen, region[clip], width, patch)
        torch.testing.assert_close(nearness[clip], slow[1].float(), atol=1e-6, rtol=1e-4)
        near, slow_variance = nearness[clip] > 1e-6, slow[0].float()
        torch.testing.assert_close(variance[clip][near], slow_variance[near], atol=1e-5, rtol=1e-3)
    assert nearby_variance(predictions[:1], region, width, patch) is None


def test_nearness_is_full_at_a_straight_edge_and_nothing_far_away():
    region = torch.zeros(1, 1, 12, 24, dtype=torch.bool)
    region[..., :12] = True
    _, nearness = nearby_variance((randn(1, 1, 1, 12, 24),) * 2, region, 1.0, (1, 1, 1))
    middle = nearness.view(12, 24)[6]
    assert middle[11] == pytest.approx(1, abs=1e-3) and 0.4 < middle[12] < 1
    assert (middle[12:].diff() <= 0).all() and middle[16:].max() == 0


@pytest.mark.parametrize("width", [0.0, 1.5])
def test_the_signal_is_in_multiples_of_what_is_usual(width):
    """Of the window's own levels, and of what is usual at the step to come."""
    predictions = tuple(randn(2, 3, 2, 6, 8, seed=i) for i in range(3))
    region = torch.zeros(2, 2, 6, 8, dtype=torch.bool)
    region[..., 1:3, 2:5] = True
    window = Window(predictions, region, [0.9, 0.8, 0.6, 0.5])
    measured = measure(Signal(calibration=Calibration(USUAL, width)), window, (1, 2, 2))
    levels = torch.tensor([0.9, 0.8, 0.6]).double()
    usual = reference.usual_variance(USUAL, 0.5) * float(levels.var())
    for clip in range(2):
        slow = reference.variance([p[clip] for p in predictions], region[clip])
        assert float(measured.variance[clip]) == pytest.approx(slow / usual, rel=1e-4)
    assert isinstance(measured, Measured) and (measured.nearby is None) == (width == 0)
    if width:
        nearby, nearness = nearby_variance(predictions, region, width, (1, 2, 2))
        torch.testing.assert_close(measured.nearby, nearby / usual)
        assert torch.equal(measured.nearness, nearness)


def test_what_watches_the_variance():
    watching = {
        m for m, c in METHODS.items() if isinstance(c, KVLockConfig) and watches_variance(c)
    }
    assert watching == {
        "kv-lock",
        "global",
        "kv-only",
        "omega-only",
        "s-omega",
        "paper-literal",
        "omega-min-1",
    } | {*CALIBRATED}


def test_only_the_calibrated_methods_need_and_take_what_is_usual():
    for method in METHODS:
        if method in CALIBRATED:
            assert flat(method_config(method, {"usual": USUAL}, {}))["usual"] == USUAL
            assert flat(method_config(method, {}, {"usual": USUAL}))["usual"] == USUAL
            with pytest.raises(ValueError, match="type kvlock calibrate MODEL --suite"):
                method_config(method, {}, {})
        else:
            assert method_config(method, {"usual": USUAL}, {}) == METHODS[method]
            with pytest.raises(ValueError, match="^usual has no effect|has no option 'usual'"):
                method_config(method, {}, {"usual": USUAL})


def test_calibrated_guidance_against_a_slow_loop(backbone):
    """Anchored; in the last 0.7 of the steps APG, omega lowered by the variance; no K/V lock."""
    request = make_request()
    world = World(backbone, request)
    sampler, inside = world.sampler, world.inside.bool()
    z, held, average = world.noise, [], None
    for step in range(STEPS):
        sigma, omega = sampler.sigmas[step], OMEGA
        variance = reference.variance(held[-2:], inside)  # a sixth of 6 steps, but two at least
        cond, uncond = (z - sigma * world.velocity(z, step, p) for p in (request.prompt, ""))
        held.append(cond[0])
        denoised = uncond + omega * (cond - uncond)
        if step >= STEPS - 4:
            levels = torch.tensor(sampler.sigmas[step - 2 : step]).double()
            walked = float(((levels - levels.mean()) ** 2).sum())
            usual = reference.usual_variance(USUAL, sigma) * walked
            omega *= min(max(usual / variance, 1 / 3), 1.0)
            projected = reference.projected(cond[0], uncond[0], omega, average, kept=inside)
            denoised, average = projected[0][None], projected[1]
        z = sampler.step(z, (z - denoised) / sigma, step)
        following = sampler.sigmas[step + 1]
        outside = (1 - following) * world.clean + following * world.noise
        z = torch.where(inside, z, outside)
    settings = short("calibrated-omega", usual=USUAL, guidance_scale=OMEGA)
    result = latents_of(backbone, [request], settings)
    torch.testing.assert_close(result, z.float(), atol=2e-3, rtol=1e-3)


def test_alpha_is_the_mean_over_the_background_where_tokens_have_their_own(backbone):
    options = dict(usual=USUAL, threshold=4.0)
    even, own = (
        edit_clips(backbone, [make_request()], short(m, **options))[0].trace
        for m in ("calibrated", "calibrated-spatial")
    )
    assert STEPS == 6
    assert [r.fusion_ratio for r in even[:2]] == [r.fusion_ratio for r in own[:2]] == [0, 0]
    assert even[2].fusion_ratio == pytest.approx(min(even[2].variance / 4, 1))
    assert even[2].variance == own[2].variance  # nothing was locked before
    assert 0 < own[2].fusion_ratio < even[2].fusion_ratio


def test_a_lock_with_a_width_is_another_than_one_without(backbone):
    def locked(width):
        config = KVLockConfig(
            STEPS,
            lock_steps=1.0,
            lock=Lock(),
            signal=Signal(threshold=1e-9, calibration=Calibration(((0.0, 1.0),), width)),
            guidance=METHODS["kv-only"].guidance,
            source=METHODS["plain"].source,
        )
        return latents_of(backbone, [make_request()], config)

    assert (locked(0.3) - locked(0.0)).abs().max() > 1e-4
