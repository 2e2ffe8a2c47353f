"""Means, paired differences, and the tables of a run."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from kvlock.bench.jobs import CEILING
from kvlock.bench.rows import Row, paired_difference, time_ratio
from kvlock.bench.scores import BY_NETWORKS, METRICS
from kvlock.bench.tables import csv_lines, markdown, print_tables
from kvlock.bench.tradeoff import plot_tradeoff
from kvlock.cli import main
from kvlock.methods.catalogue import COMPOSITE, METHODS


def _row(model, method, value):
    keys = [(f"c{i}", 0) for i in range(5)]
    return Row(
        model,
        method,
        {"psnr_background": {k: value + i for i, k in enumerate(keys)}},
        dict.fromkeys(keys, value),
    )


def test_tables_of_a_run(finished, capsys):
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "0"]) == 0
    said = capsys.readouterr().out
    assert "2 clips, 2 seeds" in said and "paired mean difference to plain" in said
    text = (out / "table.md").read_text()
    assert "PSNR background, dB ↑" in text and "flicker, grey levels ↓" in text
    assert "2 clips, 2 seeds" in text and "Paired difference to plain" in text
    assert "to vace" not in text
    assert main(["bench", "table", str(out), "--report-clips", "0", "--against", "kv-lock"]) == 0
    assert "paired mean difference to kv-lock" in capsys.readouterr().out
    assert "Paired difference to kv-lock" in (out / "table.md").read_text()
    assert main(["bench", "table", str(out), "--against", "magic"]) == 2
    assert "expected one of vae-ceiling, " in capsys.readouterr().err


def test_the_csv_has_a_line_for_every_method_and_metric(finished):
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "0"]) == 0
    with open(out / "table.csv") as file:
        lines = list(csv.DictReader(file))
    header = ["suite", "model", "method", "n", "metric", "mean", "diff_plain", "low", "high"]
    assert list(lines[0])[:9] == header
    names = {line["method"] for line in lines}
    assert names == {m + c for m in (CEILING, "plain", "kv-lock") for c in ("", COMPOSITE)}
    expected = {m.name for m in METRICS} - {m.name for m in BY_NETWORKS}
    expected -= {"temporal"}  # the random model draws no object
    assert {line["metric"] for line in lines} == expected
    own = [x for x in lines if x["method"] == "kv-lock"]
    [line] = [x for x in own if x["metric"] == "psnr_background"]
    assert float(line["diff_plain"]) and line["low"] == "" and float(line["time_plain"]) > 0


def test_the_tradeoff_is_drawn_where_a_truth_is_known(finished, tmp_path):
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "0"]) == 0
    with Image.open(out / "tradeoff.png") as picture:
        assert picture.width > 500
    assert not plot_tradeoff([_row("m", "plain", 1.0)], tmp_path / "nothing.png")
    assert not list(tmp_path.iterdir())


def test_the_terminals_table_is_short_and_at_most_100_columns_wide(capsys):
    """Of all methods, with and without composite, on two models, one without a known truth."""
    truth, keys = ("psnr_inside", "right_edit"), [(f"c{i}", 0) for i in range(6)]
    networks = ("lpips_background", "clip_text_region")
    rows = []
    for model, metrics in (("with-truth", truth), ("without", networks)):
        for method in (CEILING, *METHODS):
            for suffix in ("", COMPOSITE):
                number = len(rows) / 100
                values = {m: dict.fromkeys(keys, number) for m in ("psnr_background", *metrics)}
                rows.append(Row(model, method + suffix, values, dict.fromkeys(keys, 1.0 + number)))
    print_tables(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and not any(COMPOSITE in line for line in lines)
    found = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert set(METHODS) | {CEILING} <= set(found)
    assert found["kv-lock"][1] == "6" and len(found["kv-lock"]) == 9  # of the model without truth
    own, plain = (
        next(
            r.values["psnr_background"]["c0", 0] for r in rows[len(rows) // 2 :] if r.method == name
        )
        for name in ("kv-lock", "plain")
    )
    assert found["kv-lock"][2:4] == [f"{own:.2f}", f"{own - plain:+.2f}*"]
    assert found["plain"][-1] == "1.00"
    text = "\n".join(lines)
    assert all(
        word in text for word in ("right", "LPIPS", "CLIP", "paired mean difference to plain")
    )


def test_the_terminals_table_compares_with_the_method_that_is_asked_for(capsys):
    rows = [
        _row("m", "plain", 10.0),
        _row("m", "kv-lock", 12.5),
        _row("m", "plain" + COMPOSITE, 12.0),
    ]
    print_tables(rows, "kv-lock")
    [plain] = [x.split() for x in capsys.readouterr().out.splitlines() if x.startswith("plain")]
    assert plain == ["plain", "5", "12.00", "-2.50*", "1.00"]
    print_tables(rows, "plain" + COMPOSITE)
    lines = [x.split() for x in capsys.readouterr().out.splitlines()]
    [plain, pasted] = [x for x in lines if x and x[0].startswith("plain")]
    assert plain[3] == "-2.00*" and pasted == ["plain" + COMPOSITE, "5", "14.00", "1.20"]


def test_paired_difference_has_the_interval_of_the_normal_distribution():
    rng = np.random.default_rng(3)
    base = {(f"c{i}", 0): float(v) for i, v in enumerate(rng.normal(30, 5, 400))}
    moved = {k: v + 0.5 + float(e) for (k, v), e in zip(base.items(), rng.normal(0, 1, 400))}
    difference = paired_difference(moved, base)
    values = [moved[k] - base[k] for k in base]
    spread = 1.96 * np.std(values, ddof=1) / math.sqrt(400)
    assert difference.mean == pytest.approx(np.mean(values)) and difference.n == 400
    assert difference.low == pytest.approx(np.mean(values) - spread, abs=0.02)
    assert difference.high == pytest.approx(np.mean(values) + spread, abs=0.02)


def test_seeds_of_one_clip_are_not_clips_of_their_own():
    """Five seeds of eight clips are eight numbers, their means."""
    rng = np.random.default_rng(0)
    many = {(f"c{i}", s): float(rng.normal()) for i in range(8) for s in range(5)}
    few = {(f"c{i}", 0): float(np.mean([many[f"c{i}", s] for s in range(5)])) for i in range(8)}
    a, b = (paired_difference(v, dict.fromkeys(v, 0.0)) for v in (many, few))
    assert (
        (a.low, a.high, a.n)
        == (b.low, b.high, b.n)
        == (pytest.approx(a.low), pytest.approx(a.high), 8)
    )
    assert paired_difference(few, {("other", 0): 1.0}) is None


def test_a_few_clips_have_no_interval():
    four = {(f"c{i}", 0): 1.0 for i in range(4)}
    difference = paired_difference(four, dict.fromkeys(four, 0.0))
    assert difference.mean == 1 and math.isnan(difference.low) and math.isnan(difference.high)


def test_only_clips_that_both_have_are_compared():
    values = {("a", 0): 2.0, ("b", 0): 100.0}
    assert paired_difference(values, {("a", 0): 1.0, ("c", 0): 5.0}).mean == 1


def test_vace_stands_beside_the_rows_of_another_model():
    rows = [
        _row("vace-model", "plain", 10.0),
        _row("vace-model", "vace", 10.0),
        _row("t2v", "plain", 5.0),
    ]
    rows += [_row("t2v", "kv-lock", 7.5)]
    lines = list(csv.DictReader(csv_lines(rows, "s").splitlines()))
    assert [float(x["diff_vace"] or "nan") for x in lines][2:] == [-5, -2.5]
    assert lines[3]["diff_plain"] == "2.5" and lines[3]["low"] == lines[3]["high"] == "2.5"
    assert time_ratio(rows[3], rows[2]) == 1.5
    assert "+2.50* [+2.50, +2.50]" in markdown(rows, "s")
