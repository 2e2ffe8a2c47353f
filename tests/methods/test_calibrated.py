"""The calibrated schedules: their equations, whole edits against a slow loop, and `kvlock calibrate`."""

import json

import numpy as np
import pytest
import reference
import torch
from kvlock.core.calibrated import nearby_variance, path_variance, usual_variance
from kvlock.methods.table import CALIBRATED, METHODS, config_class, method_config
from test_edit import STEPS, backbone, make_request  # noqa: F401
from test_methods import OMEGA, World, _latents

from kvlock.backbones.calibration import calibration_path, read_usual
from kvlock.cli import main
from kvlock.core.config import KVLockConfig
from kvlock.core.fusion import fusion_weight
from kvlock.core.schedule import control_at
from kvlock.core.variance import windowed_variance
from kvlock.editing import default_config, edit_clips
from kvlock.shapes.scenes import write_scene
from support import tiny

USUAL = ((1.0, 0.5), (0.9, 0.004), (0.6, 0.02), (0.2, 0.01))


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2, 0.3, 0.6, 0.75, 0.9, 0.95, 1.0])
def test_what_is_usual_between_the_measured_levels(sigma):
    assert usual_variance(USUAL, sigma) == pytest.approx(reference.usual_variance(USUAL, sigma))
    assert usual_variance(USUAL[::-1], sigma) == usual_variance(USUAL, sigma)


@pytest.mark.parametrize("steps", [6, 20, 50])
def test_a_steady_drift_is_the_same_at_any_number_of_steps(steps):
    """Predictions that move with the noise level: their variance per that of the levels is the drift's square."""
    sigmas, drift = torch.linspace(1, 0, steps + 1).double().pow(0.5), _randn(1, 3, 1, 4, 4)
    window = slice(steps // 3, steps // 3 + max(2, steps // 6))
    predictions = tuple(float(s) * drift for s in sigmas[window])
    region = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    rate = windowed_variance(predictions, region) / path_variance(sigmas[window].tolist())
    torch.testing.assert_close(rate, drift.square().mean()[None], rtol=1e-3, atol=0)


@pytest.mark.parametrize("width", [0.6, 1.5])
@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 1, 2)])
def test_variance_around_each_token(width, patch):
    predictions = tuple(_randn(2, 3, 2, 6, 8, seed=i) for i in range(4))
    region = torch.zeros(2, 2, 6, 8, dtype=torch.bool)
    region[0, :, 1:3, 2:5], region[1, 0, 4:, 6:] = True, True
    variance, nearness = nearby_variance(predictions, region, width, patch)
    for clip in range(2):
        slow = reference.nearby_variance([p[clip] for p in predictions], region[clip], width, patch)
        torch.testing.assert_close(nearness[clip], slow[1].float(), atol=1e-6, rtol=1e-4)
        seen = nearness[clip] > 1e-6
        torch.testing.assert_close(
            variance[clip][seen], slow[0].float()[seen], atol=1e-5, rtol=1e-3
        )
    assert nearby_variance(predictions[:1], region, width, patch) is None


def test_nearness_is_full_at_a_straight_edge_and_nothing_far_away():
    region = torch.zeros(1, 1, 12, 24, dtype=torch.bool)
    region[..., :12] = True
    _, nearness = nearby_variance((_randn(1, 1, 1, 12, 24),) * 2, region, 1.0, (1, 1, 1))
    middle = nearness.view(12, 24)[6]
    assert middle[11] == pytest.approx(1, abs=1e-3) and 0.4 < middle[12] < 1
    assert (middle[12:].diff() <= 0).all() and middle[16:].max() == 0


def test_each_token_has_its_own_alpha():
    config = KVLockConfig(lock_steps=1.0, threshold=0.5)
    nearby = torch.tensor([[0.1, 0.5, 2.0, 2.0]]), torch.tensor([[1.0, 0.5, 0.25, 0.0]])
    control = control_at(config, 3, torch.tensor([0.3]), torch.zeros(1), nearby)
    torch.testing.assert_close(control.fusion_ratio, torch.tensor([[0.2, 0.5, 0.25, 0.0]]))
    background = torch.tensor([[True, True, False, True]])
    torch.testing.assert_close(
        fusion_weight(control.fusion_ratio, background, 0.1)[..., 0],
        torch.tensor([[0.2, 0.5, 0.1, 0.0]]),
    )


@pytest.mark.parametrize("variance", [0.0, 0.2, 0.5, 1.0, 2.0, 9.0])
def test_risk_lowers_the_guidance(variance):
    config = KVLockConfig(
        guidance_response="lower", guidance_floor=0.25, guidance_boost=1.0, threshold=0.5
    )
    omega = control_at(config, 49, torch.tensor([variance]), torch.zeros(1)).guidance_scale.item()
    expected = 5.0 if variance == 0 else 5.0 * min(max(0.5 / variance, 0.25), 1.0)
    assert omega == pytest.approx(expected)


def test_what_watches_the_variance():
    watching = [
        m for m in METHODS if config_class(m) is KVLockConfig and _config(m).watches_variance
    ]
    assert set(watching) == {
        "kv-lock",
        "global",
        "kv-only",
        "omega-only",
        "s-omega",
        "paper-literal",
        "omega-min-1",
    } | {*CALIBRATED}


def _config(method):
    return method_config(method, {}, {"usual": USUAL} if method in CALIBRATED else {})


def test_the_window_as_a_share_of_the_steps():
    assert [KVLockConfig(n, window=1 / 6).window_steps for n in (4, 12, 30, 50)] == [2, 2, 5, 8]
    assert KVLockConfig(50, window=7).window_steps == 7


@pytest.mark.parametrize(
    "field, value",
    [
        ("window", 1.5),
        ("window", 0.0),
        ("usual", ((0.5, 0.0),)),
        ("usual", ((1.5, 0.1),)),
        ("lock_width", -1.0),
        ("signal", "loud"),
        ("guidance_response", "wait"),
    ],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*expected"):
        KVLockConfig(**{field: value})


def test_only_the_calibrated_methods_need_and_take_what_is_usual():
    for method in CALIBRATED:
        assert method_config(method, {"usual": USUAL}, {}).usual == USUAL
        assert method_config(method, {}, {"usual": USUAL}).usual == USUAL
        with pytest.raises(ValueError, match="type kvlock calibrate MODEL --suite"):
            method_config(method, {}, {})
    assert (
        default_config("shapes").usual == ()
        and len(default_config("shapes", "calibrated").usual) == 28
    )


def test_calibrated_guidance_against_a_slow_loop(backbone):  # noqa: F811
    """Anchored; in the last 0.7 of the steps APG, omega divided by the variance over what is usual; no K/V lock."""
    request = make_request()
    world = World(backbone, request)
    sampler = world.sampler
    z, held, average = world.noise, [], None
    for step in range(STEPS):
        sigma, omega = sampler.sigmas[step], OMEGA
        variance = reference.variance(
            held[-2:], world.inside.bool()
        )  # a sixth of 6 steps, but two at least
        cond, uncond = (z - sigma * world.velocity(z, step, p) for p in (request.prompt, ""))
        held.append(cond[0])
        denoised = uncond + omega * (cond - uncond)
        if step >= STEPS - 4:
            levels = torch.tensor(sampler.sigmas[step - 2 : step]).double()
            usual = reference.usual_variance(USUAL, sigma) * float(
                ((levels - levels.mean()) ** 2).sum()
            )
            omega *= min(max(usual / variance, 1 / 3), 1.0)
            denoised, average = reference.projected(cond, uncond, omega, average)
        z = sampler.step(z, (z - denoised) / sigma, step)
        outside = (1 - sampler.sigmas[step + 1]) * world.clean + sampler.sigmas[
            step + 1
        ] * world.noise
        z = torch.where(world.inside.bool(), z, outside)
    result = _latents(backbone, request, "calibrated-omega", usual=USUAL, guidance_scale=OMEGA)
    torch.testing.assert_close(result, z.float(), atol=2e-3, rtol=1e-3)


def test_alpha_is_the_mean_over_the_background_where_it_has_a_place(backbone):  # noqa: F811
    request = make_request()
    fields = dict(num_inference_steps=STEPS, usual=USUAL, threshold=4.0)
    even, placed = (
        edit_clips(backbone, [request], method_config(m, {}, fields))[0].trace
        for m in ("calibrated", CALIBRATED[1])
    )
    assert STEPS == 6 and [r.fusion_ratio for r in even[:2]] == [
        r.fusion_ratio for r in placed[:2]
    ] == [0, 0]
    assert even[2].fusion_ratio == pytest.approx(min(even[2].variance / 4, 1))
    assert even[2].variance == placed[2].variance  # nothing was locked before
    assert 0 < placed[2].fusion_ratio < even[2].fusion_ratio


def test_a_lock_with_a_width_is_another_than_one_without(backbone):  # noqa: F811
    request = make_request()
    fields = dict(lock_steps=1.0, threshold=1e-9, background_anchor="none", adaptive_guidance=False)
    narrow, even = (
        _latents(backbone, request, "kv-only", lock_width=w, **fields) for w in (0.3, 0.0)
    )
    assert (narrow - even).abs().max() > 1e-4


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A tiny model, five clips without a known truth, and the command that calibrates the one on the other."""
    folder = tmp_path_factory.mktemp("calibrated")
    tiny.vace_pipe().save_pretrained(folder / "model")
    lines = []
    for seed in range(5):
        write_scene(seed, folder / str(seed))
        lines.append(
            dict(
                id=f"clip-{seed}",
                video=f"{seed}/source.mp4",
                mask=f"{seed}/mask.mp4",
                prompt="a red cat",
            )
        )
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [
        "calibrate",
        str(folder / "model"),
        "--suite",
        str(folder / "clips.jsonl"),
        "--steps",
        "6",
    ]
    assert main(words) == 0
    return folder, words


def test_calibrate_stores_the_median_at_each_level_beside_the_model(calibrated):
    folder, _ = calibrated
    model = str(folder / "model")
    record = json.loads(calibration_path(model).read_text())
    assert calibration_path(model).parent == folder / "model" and record["clips"] == 5
    out = folder / "runs"
    words = [
        "--methods",
        "plain",
        "--steps",
        "6",
        "--signal",
        "conditional",
        "--window",
        str(1 / 6),
        "--model",
        model,
    ]
    assert main(["bench", "run", str(folder / "clips.jsonl"), *words, "--out", str(out)]) == 0
    traces = [json.loads(p.read_text()) for p in out.glob("results/*.plain.*/trace.json")]
    assert len(traces) == 5
    levels = list(zip(*traces))[2:]  # nothing varies before there are two predictions
    sigmas = [r["sigma"] for r in traces[0]]
    walked = [
        np.var(sigmas[step - 2 : step], ddof=1) for step in range(2, 6)
    ]  # a sixth of 6 steps, but two at least
    expected = [
        (x[0]["sigma"], np.median([r["variance"] for r in x]) / w) for x, w in zip(levels, walked)
    ]
    assert np.allclose(record["usual"], expected, rtol=1e-5) and len(expected) == 4
    assert read_usual(model) == tuple(map(tuple, record["usual"]))
    assert (
        default_config(model, "calibrated").usual == read_usual(model)
        and default_config(model).usual == ()
    )


def test_an_edit_by_what_is_usual_and_the_same_again(calibrated, tmp_path):
    folder, _ = calibrated
    words = [
        f"{folder}/0/source.mp4",
        "--mask",
        f"{folder}/0/mask.mp4",
        "--prompt",
        "a red cat",
        "--steps",
        "3",
    ]
    words += ["--model", str(folder / "model"), "--method", "calibrated-spatial"]
    assert main(["edit", *words, "--out", str(tmp_path / "first")]) == 0
    assert (
        main(
            [
                "edit",
                "--from",
                str(tmp_path / "first" / "run.json"),
                "--out",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )
    first, again = ((tmp_path / n / "edited.mp4").read_bytes() for n in ("first", "again"))
    assert first == again


def test_what_cannot_be_calibrated_is_said(calibrated, tmp_path, capsys, monkeypatch):
    folder, words = calibrated
    assert main(words[:2]) == 2 and "--suite is missing" in capsys.readouterr().err
    assert main([*words[:-1], "2"]) == 2 and "3 steps or more" in capsys.readouterr().err
    scenes = [dict(id=f"s{n}", prompt="a red circle", scene=n) for n in range(5)]
    (folder / "scenes.jsonl").write_text("\n".join(map(json.dumps, scenes)))
    assert main([*words[:2], "--suite", str(folder / "scenes.jsonl"), "--steps", "3"]) == 2
    assert "of 5 edits are right" in capsys.readouterr().err  # a random model makes no right edit
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_path("wan2.1-vace-14b").is_relative_to(
        tmp_path / "kvlock" / "Wan-AI--Wan2.1-VACE-14B-diffusers"
    )
    assert read_usual("wan2.1-vace-14b") == ()
    with pytest.raises(ValueError, match="type kvlock calibrate"):
        default_config("wan2.1-vace-14b", "calibrated")
    calibration_path("some/model").parent.mkdir(parents=True)
    calibration_path("some/model").write_text('{"usual": [1]}')
    with pytest.raises(ValueError, match="make it again with kvlock calibrate some/model"):
        read_usual("some/model")
