"""The signals against slow loops, the statistics, and a whole run on a tiny random Wan-VACE."""

import json

import numpy as np
import pytest
import torch

from kvlock.bench.detector.signals import (
    LONGEST,
    WINDOWS,
    History,
    across_seeds,
    mean_square,
    signals,
)
from kvlock.bench.detector.statistics import auc, auc_interval, rank_correlation, within_scenes
from kvlock.cli import main
from support import reference, tiny


def _randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inside(tensor, region):
    """Mean of squares over the region of one clip, element by element."""
    values = [
        float(tensor[c, f, y, x]) ** 2
        for c in range(len(tensor))
        for f, y, x in region.nonzero().tolist()
    ]
    return sum(values) / len(values)


def test_every_signal_against_slow_loops():
    region = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(9)) > 0.5
    history = History()
    for step in range(LONGEST + 2):
        history = history.after(
            *(_randn(2, 3, 2, 4, 4, seed=100 * kind + step) for kind in range(3))
        )
    assert len(history.guided) == len(history.source) == LONGEST
    unconditional, clean = _randn(2, 3, 2, 4, 4, seed=7), _randn(2, 3, 2, 4, 4, seed=8)
    found = signals(history, unconditional, clean, region)
    for clip, inside in enumerate(region):
        guided, conditional, source = (
            [x[clip] for x in branch]
            for branch in (history.guided, history.conditional, history.source)
        )
        local = reference.variance(guided, inside)
        expected = {
            f"variance, window {w}": reference.variance(guided[-w:], inside) for w in WINDOWS
        }
        expected |= {
            f"variance of the conditional, window {w}": reference.variance(conditional[-w:], inside)
            for w in WINDOWS
        }
        expected |= {
            "variance, global": reference.variance(guided, torch.ones_like(inside)),
            "variance / energy": local / _inside(guided[-1], inside),
            "variance / the source's": local / reference.variance(source, inside),
            "relative step change": (
                _inside(guided[-1] - guided[-2], inside) / _inside(guided[-1], inside)
            )
            ** 0.5,
            "error of the source branch": _inside(source[-1] - clean[clip], inside),
            "disagreement of the branches": _inside(conditional[-1] - unconditional[clip], inside),
        }
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert float(found[name][clip]) == pytest.approx(value, rel=1e-4), name


def test_after_one_prediction_there_is_no_variance():
    one = History().after(*(_randn(1, 3, 2, 4, 4, seed=i) for i in range(3)))
    region = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    found = signals(one, one.guided[0], one.source[0], region)
    assert found["variance, window 10"] is None and found["relative step change"] is None
    assert found["error of the source branch"] == 0
    torch.testing.assert_close(mean_square(one.guided[0], region)[0], one.guided[0].square().mean())


def test_variance_across_seeds():
    variants = _randn(4, 2, 3, 2, 4, 4, seed=0)
    region = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    slow = [reference.variance([v[clip] for v in variants], region[clip]) for clip in range(2)]
    torch.testing.assert_close(across_seeds(variants, region), torch.tensor(slow))


def test_within_scenes_what_differs_between_scenes_alone_tells_nothing():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.arange(200), 4)
    difficulty, luck = rng.normal(size=200)[scenes], rng.normal(size=800)
    error = difficulty + luck
    wrong = error > 1
    assert auc(difficulty, wrong) > 0.7
    area, correlation = within_scenes(difficulty, wrong, error, scenes)
    assert area == 0.5 and np.isnan(correlation)
    area, correlation = within_scenes(luck + 10 * difficulty, wrong, error, scenes)
    assert area == 1 and correlation == pytest.approx(1)
    area, correlation = within_scenes(rng.normal(size=800), wrong, error, scenes)
    assert area == pytest.approx(0.5, abs=0.1) and correlation == pytest.approx(0, abs=0.1)
    assert np.isnan(within_scenes(luck, np.zeros(800, bool), error, scenes)[0])


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    values, wrong = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in values[wrong] for b in values[~wrong]]
    assert auc(values, wrong) == pytest.approx(np.mean(pairs))
    assert auc(values, np.zeros(40, bool)) != auc(values, np.zeros(40, bool))  # NaN
    assert auc(wrong.astype(float), wrong) == 1 and auc(-wrong.astype(float), wrong) == 0


def test_the_interval_holds_the_auc_and_is_wider_for_few_scenes():
    """What is equal within a scene is one observation, not twenty."""
    rng = np.random.default_rng(1)
    scenes = np.arange(200) // 20
    wrong, values = rng.random(200) < 0.3, rng.normal(size=10)[scenes]
    wrong = wrong | (rng.normal(size=10)[scenes] > 0.8)
    many, few = auc_interval(values, wrong, np.arange(200)), auc_interval(values, wrong, scenes)
    assert many[0] < auc(values, wrong) < many[1] and few[1] - few[0] > 1.5 * (many[1] - many[0])


def test_rank_correlation():
    x = np.array([1.0, 2.0, 3.0, 10.0])
    assert rank_correlation(x, x**3) == pytest.approx(1) and rank_correlation(
        x, -x
    ) == pytest.approx(-1)
    assert np.isnan(rank_correlation(x, np.ones(4)))


def test_a_run_goes_on_where_it_was(tmp_path, capsys):
    tiny.vace_pipe().save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    words = [
        "--model",
        str(tmp_path / "model"),
        "--num",
        "3",
        "--variants",
        "2",
        "--steps",
        "4",
        "--out",
        str(out),
    ]
    assert main(["bench", "detector", *words]) == 0
    text = capsys.readouterr().out
    assert (
        "6 all edits, of 3 scenes" in text
        and "edits that leave an object, of" in text
        and "| variance across seeds |" in text
        and "| paper-literal |" in text
    )
    for name in ("detector.csv", "detector.md", "signals.png", "roc.png", "feedback.png"):
        assert (out / name).stat().st_size > 0
    batches = sorted((out / "batches").iterdir())
    edits = [e for b in batches for e in json.loads(b.read_text())]
    assert len(batches) == 2 and {(e["scene"], e["variant"]) for e in edits} == {
        (s, v) for s in (20000, 20001, 20002) for v in (0, 1)
    }
    assert all(len(values) == 4 for e in edits for values in e["signals"].values())
    kept = batches[0].stat().st_mtime_ns, batches[1].read_bytes()
    batches[1].unlink()
    assert main(["bench", "detector", *words]) == 0
    assert (batches[0].stat().st_mtime_ns, batches[1].read_bytes()) == kept
    assert main(["bench", "detector", *words[:-4], "--steps", "5", "--out", str(out)]) == 2
    assert "a run with other configs" in capsys.readouterr().err
    assert main(["bench", "detector", "--variants", "1", "--out", str(tmp_path / "x")]) == 2
