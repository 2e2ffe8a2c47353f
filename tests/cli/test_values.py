"""What flags may hold, for every command: refused in a sentence, with code 2, before anything is done."""

import pytest

from kvlock.cli import main
from kvlock.cli.values import seed_range, size_of

EDIT = ["edit", "a.mp4", "--mask", "a.png", "--prompt", "x", "--model", "shapes", "--out", "out"]
HUGE = "9" * 30


@pytest.mark.parametrize(
    "flags, pattern",
    [
        (["--dilate", "-1"], "dilate is -1; expected 0 to 16384 pixels"),
        (["--dilate", "1000000000"], "dilate is 1000000000; expected 0 to"),
        (["--dilate", HUGE], "dilate is 9.*; expected 0 to"),
        (["--seeds", "0..99999999"], "--seeds is '0..99999999'; expected at most 1000 seeds"),
        (["--seeds", "0..100"], "101 edits are asked for.* expected at most 100 at a time"),
        (["--seeds", f"0..{HUGE}"], "--seeds is .*; expected"),
        (["--seeds", "9" * 5000], "--seeds is .*; expected"),
        (["--seed", HUGE], "seed is 9.*; expected 0 to"),
        (
            ["--steps", "1000000"],
            "num_inference_steps is 1000000; expected a whole number, 1 to 1000",
        ),
        (["--steps", HUGE], "num_inference_steps is 9.*; expected a whole number, 1 to 1000"),
        (["--lock-steps", "1000000"], "lock_steps is 1000000; expected a count from 0"),
        (["--lock-steps", "nan"], "lock_steps is nan; expected"),
        (["--window", HUGE], "window is 9.*; expected a count of at least 2"),
        (["--guidance-scale", "inf"], "guidance_scale is inf; expected 1 or more, at most 1e.06"),
        (["--guidance-scale", "nan"], "guidance_scale is nan; expected"),
        (["--threshold", "inf"], "threshold is inf; expected above 0, at most"),
        (["--threshold", "1e-320"], "threshold is 1e-320; expected above 0"),
        (["--guidance-boost", "inf"], "guidance_boost is inf; expected"),
        (["--guidance-minimum", "inf"], "guidance_minimum is inf; expected"),
        (["--method", "apg", "--apg-momentum", "inf"], "apg_momentum is inf; expected"),
        (["--method", "flowedit", "--num-noises", HUGE], "num_noises is 9.*; expected"),
        (["--method", "flowedit", "--target-boost", "inf"], "target_boost is inf; expected"),
        (["--method", "drop-2", "--drop-margin", HUGE], "drop_margin is 9.*; expected"),
        (["--flow-shift", "inf"], "flow_shift is inf; expected above 0, at most 1000"),
        (["--flow-shift", "nan"], "flow_shift is nan; expected"),
        (["--flow-shift", "-1"], "flow_shift is -1.0; expected"),
        (["--fps", "inf"], "fps is inf; expected"),
        (["--size", f"{HUGE}x1"], "--size is .*; expected WIDTHxHEIGHT"),
        (["--size", "²x1"], "--size is .*; expected WIDTHxHEIGHT"),
        (["--size", "1x1x1"], "--size is .*; expected WIDTHxHEIGHT"),
        (["--out", ""], "--out is missing"),
        (["--method", "kvlok"], "did you mean kv-lock?"),
        (["--method", "KV-LOCK"], "did you mean kv-lock?"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_an_edits(capsys, tmp_path, monkeypatch, flags, pattern):
    monkeypatch.chdir(tmp_path)
    _refused([*EDIT, *flags], pattern, capsys, tmp_path)


@pytest.mark.parametrize(
    "words, pattern",
    [
        (["edit", "--from", ".", "--out", "o"], "expected a run.json|is a folder"),
        (
            ["edit", "--from", "nowhere.json", "--out", "o"],
            "nowhere.json: there is no such file; expected a run.json",
        ),
        (["demo", "--out", ""], "--out is missing"),
        (["demo", "--seed", "-1"], "--seed is -1; expected 0 to"),
        (["bench", "run", "shapes", "--out", ""], "--out is missing"),
        (["bench", "run", "shapes", "--out", "o", "--limit", "-1"], "--limit is -1; expected 0 to"),
        (["bench", "run", "shapes", "--out", "o", "--methods", "plan"], "did you mean plain?"),
        (["bench", "run", "shapes", "--out", "o", "--model", "shape"], "did you mean shapes"),
        (["bench", "run", "shapes", "--out", "o", "--steps", HUGE], "num_inference_steps is 9"),
        (["bench", "run", "shapes", "--out", "o", "--seeds", "0..9999"], "at most 1000 seeds"),
        (["bench", "detector", "--out", ""], "--out is missing"),
        (["bench", "detector", "--out", "o", "--num", HUGE], "--num is 9.*; expected 1 to"),
        (["bench", "detector", "--out", "o", "--variants", HUGE], "--variants is 9.*; expected 2"),
        (["bench", "detector", "--out", "o", "--model", "shape"], "did you mean shapes"),
        (["shapes", "render", "--out", ""], "--out is missing"),
        (["shapes", "render", "--out", "o", "--num", "0"], "--num is 0; expected 1 to"),
        (["shapes", "render", "--out", "o", "--seed", "-1"], "--seed is -1; expected 0 to"),
        (["shapes", "train", "--out", " "], "--out is missing"),
        (["shapes", "train", "--out", "o", "--clips", "-1"], "--clips is -1; expected 1 to"),
        (["shapes", "evaluate", "--out", ""], "--out is missing"),
        (["shapes", "evaluate", "--out", "o", "--methods", "plan"], "did you mean plain?"),
        (["estimate", "--frames", HUGE], "--frames is 9.*; expected 1 to 1025"),
        (["estimate", "--steps", "0"], "--steps is 0; expected 1 to 1000"),
        (["estimate", "--variants", "1000"], "--variants is 1000; expected 1 to 100"),
        (["estimate", "--foreground", "nan"], "--foreground is nan; expected"),
        (["estimate", "--model", "wan2.1-vase-1.3b"], "did you mean wan2.1-vace-1.3b?"),
        (["estimate", "--gpu", "h1000"], "did you mean h100?"),
        (["models", "wan2.1-vase-1.3b"], "did you mean wan2.1-vace-1.3b?"),
        (["calibrate", "wan2.1-vase-1.3b"], "did you mean wan2.1-vace-1.3b?"),
        (["finish", "nowhere"], "there is no edit to finish for nowhere"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_every_other_commands(capsys, tmp_path, monkeypatch, words, pattern):
    monkeypatch.chdir(tmp_path)
    _refused(words, pattern, capsys, tmp_path)


def _refused(words, pattern, capsys, folder):
    import re

    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(pattern, said) and said.count("kvlock:") == 1, said
    assert list(folder.iterdir()) == []


def test_a_folder_with_a_run_json_is_the_one_that_is_meant(capsys, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert main(["edit", "--from", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"did you mean {tmp_path / 'run.json'}?" in capsys.readouterr().err


def test_what_is_right_is_read():
    assert seed_range("3") == range(3, 4) and seed_range("0..2") == range(3)
    assert size_of("832x480") == (480, 832) and size_of("keep") == "keep"
