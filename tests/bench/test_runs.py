"""`kvlock bench run` with a tiny random Wan-VACE."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kvlock.bench.rows import read_rows
from kvlock.bench.suite import Item, read_suite, write_suite
from kvlock.cli import main
from kvlock.cli.bench import seed_range
from kvlock.methods.catalogue import COMPOSITE
from kvlock.shapes.scenes import write_scene


def _files(folder):
    return {
        p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_run_leaves_whole_results_and_no_leases(finished):
    out, _ = finished
    folders = [p.name for p in (out / "results").iterdir()]
    assert len(folders) == 2 * 2 * 3 and not any(name.startswith(".") for name in folders)
    for folder in (out / "results").iterdir():
        assert {p.name for p in folder.iterdir()} == {"result.json", "edited.mp4", "trace.json"}
    assert [p.name for p in (out / "leases").iterdir()] == [".lock"]
    record = json.loads(next((out / "results").glob("*kv-lock*/result.json")).read_text())
    assert (
        set(record["scores"]) == {"", COMPOSITE}
        and record["versions"]["torch"]
        and record["seconds"] > 0
    )
    assert record["scores"][COMPOSITE]["psnr_background"] > record["scores"][""]["psnr_background"]


def test_a_second_run_does_nothing_and_a_lost_result_alone_is_made_again_with_the_same_bytes(
    finished, capsys
):
    out, words = finished
    before = _files(out / "results")
    assert main(words) == 0 and "12 of 12 results" in capsys.readouterr().out
    assert _files(out / "results") == before
    lost = next((out / "results").glob("*kv-lock*"))
    kept = (lost / "edited.mp4").read_bytes()
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    assert main(words) == 0
    after = _files(out / "results")
    assert set(after) == set(before) and (lost / "edited.mp4").read_bytes() == kept
    assert sum(after[p] != before[p] for p in before) <= 3


def test_a_clip_that_fails_is_named_and_the_others_are_edited(model, tmp_path, capsys):
    write_scene(3, tmp_path)
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / "empty.png")
    items = [
        Item(name, "a cat", video="source.mp4", mask=m)
        for name, m in (("bad", "empty.png"), ("good", "mask.mp4"))
    ]
    write_suite(items, tmp_path / "own.jsonl")
    words = ["--methods", "plain", "--steps", "1", "--model", model, "--out", str(tmp_path / "out")]
    assert main(["bench", "run", str(tmp_path / "own.jsonl"), *words]) == 2
    said = capsys.readouterr()
    assert (
        "2 of 4 results" in said.out
        and "bad by plain: " in said.err
        and "the mask is empty" in said.err
    )
    assert {k[0] for r in read_rows(tmp_path / "out") for k in r.seconds} == {"good"}


def test_another_suite_or_another_prompt_does_not_go_into_the_same_folder(model, tmp_path, capsys):
    write_scene(3, tmp_path)
    item = Item("one", "a cat", video="source.mp4", mask="mask.mp4")
    call = [
        "bench",
        "run",
        str(tmp_path / "own.jsonl"),
        "--methods",
        "plain",
        "--steps",
        "1",
        "--model",
        model,
    ]
    call += ["--out", str(tmp_path / "out")]
    write_suite([item], tmp_path / "own.jsonl")
    assert main(call) == 0
    write_suite([replace(item, prompt="a dog")], tmp_path / "own.jsonl")
    assert main(call) == 2 and "results of another 'one'" in capsys.readouterr().err
    write_suite([replace(item, prompt="a dog")], tmp_path / "other.jsonl")
    assert main([*call[:2], str(tmp_path / "other.jsonl"), *call[3:]]) == 2
    assert "results of the suite 'own'" in capsys.readouterr().err


def test_clips_from_files(model, tmp_path):
    write_scene(3, tmp_path)
    items = [
        Item(
            "with-truth",
            "a red cat",
            video="source.mp4",
            mask="mask.mp4",
            truth="truth.mp4",
            edit_type="odd",
        ),
        Item("without", "a blue dog", "a dog", video="source.mp4", mask="mask.mp4"),
    ]
    write_suite(items, tmp_path / "own.jsonl")
    assert read_suite(str(tmp_path / "own.jsonl")).items == tuple(items)
    words = [
        "--methods",
        "plain,flowedit-masked",
        "--steps",
        "2",
        "--model",
        model,
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["bench", "run", str(tmp_path / "own.jsonl"), *words]) == 0
    rows = {r.method: r for r in read_rows(tmp_path / "out")}
    assert set(rows["plain"].values["psnr_background"]) == {("with-truth", 0), ("without", 0)}
    assert set(rows["plain"].values["psnr_inside"]) == {("with-truth", 0)}
    assert "right_edit" not in rows["plain"].values and "hallucinated" not in rows["plain"].values
    assert rows["flowedit-masked"].values["psnr_background"]


def test_what_is_done_to_a_mask_is_said_once_a_clip(model, tmp_path, capsys):
    write_scene(3, tmp_path)
    half = np.zeros((48, 48), np.uint8)
    half[:24] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    write_suite([Item("one", "a cat", video="source.mp4", mask="half.png")], tmp_path / "own.jsonl")
    words = ["--methods", "plain", "--steps", "1", "--model", model, "--out", str(tmp_path / "out")]
    assert main(["bench", "run", str(tmp_path / "own.jsonl"), *words]) == 0
    said = capsys.readouterr().err.replace("\n", "")
    assert said.count("one: ") == 1 and "48x48" in said and "96x96" in said


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere.jsonl"], "no such manifest; expected shapes"),
        (["shapes", "--methods", "magic"], "'magic' is unknown"),
        (["shapes", "--methods", "vace", "--model", "shapes-t2v"], "use it with a VACE model"),
        (["shapes", "--seeds", "2..0"], "expected a seed"),
        (["shapes", "--limit", "-1"], "expected 0 to"),
        (["shapes", "--window", "1"], "window is 1"),
        (
            ["shapes", "--methods", "sdedit", "--strength", "0.5"],
            "strength is set by each of sdedit itself",
        ),
        (
            ["shapes", "--methods", "flowedit", "--window", "4"],
            "window is set by each of flowedit itself, or is not",
        ),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(words, message, tmp_path, capsys):
    assert main(["bench", "run", *words, "--out", str(tmp_path / "out")]) == 2
    assert (
        re.search(message, capsys.readouterr().err) and not (tmp_path / "out" / "results").exists()
    )


def test_seed_ranges():
    assert list(seed_range("3")) == [3] and list(seed_range("0..2")) == [0, 1, 2]
    for bad in ("", "2..1", "a", "1..", "-1"):
        with pytest.raises(ValueError, match="expected a seed"):
            seed_range(bad)
