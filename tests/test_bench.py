"""Suites, jobs, tables and the report, with a tiny random Wan-VACE."""

import csv
import json
import math
import multiprocessing
import os
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tiny
from kvlock.bench.jobs import STALE_AFTER, Job, Workplace
from kvlock.bench.runner import BATCH, CEILING, _describe, load_subject, plan_jobs
from kvlock.bench.scenes import SEED_STRIDE, scene_clips, scene_request, write_scene
from kvlock.bench.scores import BY_NETWORKS, METRICS, Reference, score
from kvlock.bench.suite import HELD_OUT, VALIDATION, Item, Suite, read_suite, shapes_suite, write_suite
from kvlock.bench.table import Row, csv_lines, markdown, paired_difference, read_rows, time_ratio
from kvlock.bench.tradeoff import plot_tradeoff
from kvlock.cli import main
from kvlock.cli.bench import seed_range
from kvlock.core.config import KVLockConfig
from kvlock.methods.table import COMPOSITE, METHODS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny-vace"
    tiny.vace_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """Two scenes, two methods, two seeds, run to the end; the words that ran it."""
    out = tmp_path_factory.mktemp("finished")
    words = ["shapes-validation", "--methods", "plain,kv-lock", "--limit", "2", "--seeds", "0..1", "--steps", "3"]
    words = ["bench", "run", *words, "--model", model, "--out", str(out)]
    assert main(words) == 0
    return out, words


def _files(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_whole_results_and_no_leases(finished):
    out, _ = finished
    folders = [p.name for p in (out / "results").iterdir()]
    assert len(folders) == 2 * 2 * 3 and not any(name.startswith(".") for name in folders)
    for folder in (out / "results").iterdir():
        assert {p.name for p in folder.iterdir()} == {"result.json", "edited.mp4", "trace.json"}
    assert [p.name for p in (out / "leases").iterdir()] == [".lock"]
    record = json.loads(next((out / "results").glob("*kv-lock*/result.json")).read_text())
    assert set(record["scores"]) == {"", COMPOSITE} and record["versions"]["torch"] and record["seconds"] > 0
    assert record["scores"][COMPOSITE]["psnr_background"] > record["scores"][""]["psnr_background"]


def test_a_second_run_does_nothing_and_a_lost_result_alone_is_made_again_with_the_same_bytes(finished, capsys):
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


def test_table_and_report_of_a_run(finished, capsys):
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "1"]) == 0
    text = capsys.readouterr().out
    assert "PSNR background, dB ↑" in text and "flicker, grey levels ↓" in text
    assert "2 clips, 2 seeds" in text and "Paired difference to plain" in text and "to vace" not in text
    assert main(["bench", "table", str(out), "--report-clips", "0", "--against", "kv-lock"]) == 0
    assert "Paired difference to kv-lock" in capsys.readouterr().out
    assert main(["bench", "table", str(out), "--against", "magic"]) == 2
    assert "expected one of vae-ceiling, " in capsys.readouterr().err
    with open(out / "table.csv") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:9] == ["suite", "model", "method", "n", "metric", "mean", "diff_plain", "low", "high"]
    names = {line["method"] for line in lines}
    assert names == {m + c for m in (CEILING, "plain", "kv-lock") for c in ("", COMPOSITE)}
    assert {line["metric"] for line in lines} == {m.name for m in METRICS} - {m.name for m in BY_NETWORKS}
    [line] = [x for x in lines if x["method"] == "kv-lock" and x["metric"] == "psnr_background"]
    assert float(line["diff_plain"]) and line["low"] == "" and float(line["time_plain"]) > 0
    page = (out / "report.html").read_text()
    assert page.count("<section>") == 1 and page.count("<video") == 3 + 2 * 3 and "<polyline" in page
    for source in page.split('src="')[1:]:
        assert (out / source.split('"')[0]).is_file()
    with Image.open(out / "tradeoff.png") as picture:
        assert picture.width > 500
    assert not plot_tradeoff([_row("m", "plain", 1.0)], out / "nothing.png") and not (out / "nothing.png").exists()


def test_two_configs_of_one_method_are_not_averaged(finished, model, tmp_path, capsys):
    for threshold in ("0.02", "0.03"):
        words = ["shapes-validation", "--methods", "kv-lock", "--limit", "1", "--steps", "2", "--threshold", threshold]
        assert main(["bench", "run", *words, "--model", model, "--out", str(tmp_path)]) == 0
    assert main(["bench", "table", str(tmp_path)]) == 2
    assert "kv-lock on" in (said := capsys.readouterr().err) and "two configs" in said


def test_results_from_before_an_option_was_added_are_of_the_same_config(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "old")
    before = [(r.method, r.values) for r in read_rows(tmp_path / "old")]
    path = next((tmp_path / "old" / "results").glob("*.kv-lock.*/result.json"))
    result = json.loads(path.read_text())
    for name in ("usual", "signal"):
        del result["job"]["config"][name]
    path.write_text(json.dumps(result))
    assert [(r.method, r.values) for r in read_rows(tmp_path / "old")] == before


def test_a_comparison_is_of_equal_steps(model, tmp_path, capsys):
    for method, steps in (("plain", "2"), ("kv-lock", "3")):
        words = ["shapes-validation", "--methods", method, "--limit", "1", "--steps", steps]
        assert main(["bench", "run", *words, "--model", model, "--out", str(tmp_path)]) == 0
    assert main(["bench", "table", str(tmp_path)]) == 2
    assert "num_inference_steps" in capsys.readouterr().err


def test_a_clip_that_fails_is_named_and_the_others_are_edited(model, tmp_path, capsys):
    write_scene(3, tmp_path)
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / "empty.png")
    items = [
        Item(name, "a cat", video="source.mp4", mask=m) for name, m in (("bad", "empty.png"), ("good", "mask.mp4"))
    ]
    write_suite(items, tmp_path / "own.jsonl")
    words = ["--methods", "plain", "--steps", "1", "--model", model, "--out", str(tmp_path / "out")]
    assert main(["bench", "run", str(tmp_path / "own.jsonl"), *words]) == 2
    said = capsys.readouterr()
    assert "2 of 4 results" in said.out and "bad by plain: " in said.err and "the mask is empty" in said.err
    assert {k[0] for r in read_rows(tmp_path / "out") for k in r.seconds} == {"good"}


def test_another_suite_or_another_prompt_does_not_go_into_the_same_folder(model, tmp_path, capsys):
    write_scene(3, tmp_path)
    item = Item("one", "a cat", video="source.mp4", mask="mask.mp4")
    call = ["bench", "run", str(tmp_path / "own.jsonl"), "--methods", "plain", "--steps", "1", "--model", model]
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
        Item("with-truth", "a red cat", video="source.mp4", mask="mask.mp4", truth="truth.mp4", edit_type="odd"),
        Item("without", "a blue dog", "a dog", video="source.mp4", mask="mask.mp4"),
    ]
    write_suite(items, tmp_path / "own.jsonl")
    assert read_suite(str(tmp_path / "own.jsonl")).items == tuple(items)
    words = ["--methods", "plain,flowedit-masked", "--steps", "2", "--model", model, "--out", str(tmp_path / "out")]
    assert main(["bench", "run", str(tmp_path / "own.jsonl"), *words]) == 0
    rows = {r.method: r for r in read_rows(tmp_path / "out")}
    assert set(rows["plain"].values["psnr_background"]) == {("with-truth", 0), ("without", 0)}
    assert set(rows["plain"].values["psnr_inside"]) == {("with-truth", 0)}
    assert "right_edit" not in rows["plain"].values and "hallucinated" not in rows["plain"].values
    assert rows["flowedit-masked"].values["psnr_background"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere.jsonl"], "no such manifest; expected shapes"),
        (["shapes", "--methods", "magic"], "'magic' is unknown"),
        (["shapes", "--methods", "vace", "--model", "shapes-t2v"], "use it with a VACE model"),
        (["shapes", "--seeds", "2..0"], "expected a seed"),
        (["shapes", "--limit", "-1"], "expected 0 .all. or more"),
        (["shapes", "--window", "1"], "window is 1"),
        (["shapes", "--methods", "sdedit", "--strength", "0.5"], "strength is set by each of sdedit itself"),
        (["shapes", "--methods", "flowedit", "--window", "4"], "window is set by each of flowedit itself, or is not"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(words, message, tmp_path, capsys):
    assert main(["bench", "run", *words, "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "out" / "results").exists()


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 1"),
        ('{"id": "a/b", "prompt": "x", "scene": 1}', "id 'a/b'"),
        ('{"id": "a", "prompt": "x"}', "neither a scene nor"),
        ('{"id": "a", "prompt": " ", "scene": 1}', "no prompt"),
        ('{"id": "a", "prompt": "x", "scene": -1}', "expected a seed"),
        ('{"id": "a", "prompt": "x", "scene": 1, "color": 2}', "field 'color' is unknown"),
        ('{"id": "a", "prompt": "x", "scene": 1}\n{"id": "a", "prompt": "y", "scene": 2}', "stands there twice"),
        ("", "is empty"),
        ("[1]", "line 1"),
        ('{"id": ".a", "prompt": "x", "scene": 1}', "a letter, digit or _ first"),
        ('{"id": "a", "prompt": "x", "scene": 1.5}', "scene is 1.5; expected a number"),
        ('{"id": "a", "prompt": "x", "scene": 1, "source_prompt": null}', "source_prompt is None; expected str"),
        ('{"id": "a", "prompt": "x", "scene": 1, "invert_mask": "false"}', "invert_mask is 'false'; expected bool"),
        ('{"id": "a", "prompt": "x", "scene": 1, "fps": 0}', "fps is 0"),
    ],
)
def test_bad_manifests_are_named(line, message, tmp_path):
    path = tmp_path / "suite.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        read_suite(str(path))


def test_the_suites_of_the_built_in_world():
    held_out, validation = read_suite("shapes"), read_suite("shapes-validation")
    assert [i.scene for i in held_out.items] == list(HELD_OUT) and len(held_out.items) == 64
    assert [i.scene for i in validation.items] == list(VALIDATION) and not set(HELD_OUT) & set(VALIDATION)
    assert {i.edit_type for i in held_out.items} == {"recolour", "reshape", "replace", "remove", "add"}


def test_jobs_in_batches_with_every_method_on_the_same_clips_first():
    suite = shapes_suite("some", range(BATCH + 2))
    batches = plan_jobs(suite, "shapes", (CEILING, "plain", "plain+composite", "flowedit"), range(2), {"window": 4})
    assert [len(b) for b in batches] == [BATCH] * 6 + [2] * 6
    assert [b[0].method for b in batches[:6]] == [CEILING, "plain", "flowedit"] * 2
    assert batches[1][0].config.window == 4 and batches[0][0].config is None
    assert len({j.id for b in batches for j in b}) == (BATCH + 2) * 3 * 2


def test_a_setting_that_makes_a_method_is_not_overridden():
    suite = shapes_suite("one", range(1))
    [[job], [other]] = plan_jobs(suite, "shapes", ("sdedit", "kv-lock"), range(1), {"strength": 0.5})
    assert job.config.strength == METHODS["sdedit"]["strength"] and other.config.strength == 0.5


def test_a_manifest_may_give_a_scene_other_prompts():
    item = Item("odd", "a green cross", "a dog", "blurry", scene=3)
    request = load_subject(replace(shapes_suite("s", range(0)), items=(item,)), item, 2).request
    assert (request.prompt, request.source_prompt, request.negative_prompt) == ("a green cross", "a dog", "blurry")
    assert request.seed == 3 + 2 * SEED_STRIDE


JOB = Job("scene-00001", "shapes", "plain", 0, KVLockConfig())


def test_job_ids_tell_configs_apart_and_stay():
    assert JOB.id == replace(JOB).id == "scene-00001.shapes.plain.s0." + JOB.id[-8:]
    others = [replace(JOB, config=KVLockConfig(window=4)), replace(JOB, seed=1), replace(JOB, model="/x/shapes")]
    others.append(replace(JOB, inputs="other weights"))
    assert len({JOB.id, *(j.id for j in others)}) == 5
    assert re.fullmatch(r"[A-Za-z0-9._-]+", replace(JOB, model="Wan-AI/Wan 2.1 ü").id)


def _contest(folder, wins, start):
    place = Workplace(folder)
    jobs = [replace(JOB, seed=i) for i in range(40)]
    start.wait()
    for job in jobs:
        with place.claimed([job]) as mine:
            if mine:
                wins.put(job.seed)
                with place.writing(job) as unfinished:
                    (unfinished / "result.json").write_text("{}")


def test_of_several_processes_one_gets_each_job(tmp_path):
    """Half of the jobs are under the lease of a process that died."""
    (tmp_path / "leases").mkdir()
    for i in range(0, 40, 2):
        (tmp_path / "leases" / replace(JOB, seed=i).id).write_text(f"{os.uname().nodename}:999999999:x")
    context = multiprocessing.get_context("spawn")
    wins, start = context.Queue(), context.Event()
    workers = [context.Process(target=_contest, args=(tmp_path, wins, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    won = sorted(wins.get(timeout=120) for _ in range(40))
    for worker in workers:
        worker.join()
    assert won == list(range(40)) and wins.empty()


def _claims(place):
    with place.claimed([JOB]) as mine:
        return mine


def test_leases_of_the_living_hold_and_those_of_the_dead_do_not(tmp_path):
    first, second = Workplace(tmp_path), Workplace(tmp_path)
    lease = tmp_path / "leases" / JOB.id
    with first.claimed([JOB]) as mine:
        assert mine and not _claims(second)
    assert not lease.exists() and _claims(second)
    for owner, age, free in [
        (f"{os.uname().nodename}:999999999:x", 0, True),
        (f"{os.uname().nodename}:{os.getpid()}:x", 0, False),
        (f"{os.uname().nodename}:{os.getpid()}:x", STALE_AFTER + 5, True),  # a number that another process has now
        ("another-machine:1:x", 0, False),
        ("another-machine:1:x", STALE_AFTER + 5, True),
    ]:
        lease.write_text(owner)
        os.utime(lease, (time.time() - age,) * 2)
        assert _claims(first) == free, (owner, age)


def test_who_lost_a_lease_leaves_the_winners_alone(tmp_path):
    place = Workplace(tmp_path)
    lease = tmp_path / "leases" / JOB.id
    with place.claimed([JOB]) as mine:
        assert mine
        lease.write_text("another-machine:1:x")
    assert lease.read_text() == "another-machine:1:x"


def test_work_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("kvlock.bench.jobs.BEAT", 0.01)
    place, lease = Workplace(tmp_path), tmp_path / "leases" / JOB.id
    with place.claimed([JOB]):
        os.utime(lease, (0, 0))
        deadline = time.time() + 30
        while lease.stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.01)
        assert lease.stat().st_mtime > 0


def test_a_damaged_result_is_replaced_and_a_whole_one_kept(tmp_path):
    place = Workplace(tmp_path)
    (place.results / JOB.id).mkdir()
    (place.results / JOB.id / "edited.mp4").write_text("left over")
    for text in ("first", "second"):
        with place.writing(JOB) as folder:
            (folder / "result.json").write_text(text)
    assert (place.results / JOB.id / "result.json").read_text() == "first"
    assert [p.name for p in (place.results / JOB.id).iterdir()] == ["result.json"]


def test_a_result_that_fails_leaves_nothing(tmp_path):
    place = Workplace(tmp_path)
    with pytest.raises(KeyError), place.writing(JOB) as folder:
        (folder / "result.json").write_text("{}")
        raise KeyError("broken")
    assert not list(place.results.iterdir()) and not place.is_done(JOB)


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
    assert (a.low, a.high, a.n) == (b.low, b.high, b.n) == (pytest.approx(a.low), pytest.approx(a.high), 8)
    assert paired_difference(few, {("other", 0): 1.0}) is None


def test_a_few_clips_have_no_interval():
    four = {(f"c{i}", 0): 1.0 for i in range(4)}
    difference = paired_difference(four, dict.fromkeys(four, 0.0))
    assert difference.mean == 1 and math.isnan(difference.low) and math.isnan(difference.high)


def test_only_clips_that_both_have_are_compared():
    values = {("a", 0): 2.0, ("b", 0): 100.0}
    assert paired_difference(values, {("a", 0): 1.0, ("c", 0): 5.0}).mean == 1


def _row(model, method, value):
    keys = [(f"c{i}", 0) for i in range(5)]
    return Row(
        model, method, {"psnr_background": {k: value + i for i, k in enumerate(keys)}}, dict.fromkeys(keys, value)
    )


def test_vace_stands_beside_the_rows_of_another_model():
    rows = [_row("vace-model", "plain", 10.0), _row("vace-model", "vace", 10.0), _row("t2v", "plain", 5.0)]
    rows += [_row("t2v", "kv-lock", 7.5)]
    lines = list(csv.DictReader(csv_lines(rows, "s").splitlines()))
    assert [float(x["diff_vace"] or "nan") for x in lines][2:] == [-5, -2.5]
    assert lines[3]["diff_plain"] == "2.5" and lines[3]["low"] == lines[3]["high"] == "2.5"
    assert time_ratio(rows[3], rows[2]) == 1.5
    assert "+2.50* [+2.50, +2.50]" in markdown(rows, "s")


def test_scores_of_the_truth_and_of_the_source():
    request, clips = scene_request(1), scene_clips(1)  # seed 1 reshapes
    known = Reference(clips["source"], request.mask.numpy(), clips["truth"], 1)
    truth, source = score(clips["truth"], known), score(clips["source"], known)
    assert set(truth) == {m.name for m in METRICS} - {m.name for m in BY_NETWORKS} - {"hallucinated"}
    assert truth["psnr_background"] == truth["psnr_inside"] == truth["psnr_ring"] == 100
    assert truth["flicker_background"] == truth["mode_distance"] == 0
    assert truth["right_edit"] == truth["right_shape"] == truth["right_colour"] == truth["mode_consistency"] == 1
    assert source["right_edit"] == source["right_shape"] == 0 and source["right_colour"] == 1
    assert source["psnr_frame"] == 100 and source["psnr_inside"] < 30
    assert set(score(clips["source"], Reference(clips["source"], request.mask.numpy()))) < set(truth)


def test_seed_ranges():
    assert list(seed_range("3")) == [3] and list(seed_range("0..2")) == [0, 1, 2]
    for bad in ("", "2..1", "a", "1..", "-1"):
        with pytest.raises(ValueError, match="expected a seed"):
            seed_range(bad)


def _jpegs(folder, count, value):
    folder.mkdir(parents=True)
    for i in range(count):
        image = np.full((24, 32, 3), value, np.uint8)
        image[8:16, 8:24] = 255
        Image.fromarray(image).save(folder / f"{i + 1:05d}.jpg")


def _converted(kind, root, tmp_path, *flags):
    assert main(["bench", "convert", kind, str(root), "--out", str(tmp_path / "suite.jsonl"), *flags]) == 0
    suite = read_suite(str(tmp_path / "suite.jsonl"))
    for item in suite.items:
        assert (suite.folder / item.video).exists() and (suite.folder / item.mask).exists()
    return suite


def test_five_bench(tmp_path, model):
    data = tmp_path / "FiVE" / "data"
    for name in ("bear", "swan"):
        _jpegs(data / "images" / name, 5, 90)
        _jpegs(data / "bmasks" / name, 5, 0)
    (data / "edit_prompt").mkdir()
    entry = dict(video_name="bear", editing_type_id=1, save_dir="x", source_prompt="A [bear] walks.")
    entry |= dict(target_prompt="A [lion] walks.", multiple_choice_question="?")
    (data / "edit_prompt" / "edit1_FiVE.json").write_text(json.dumps([entry, entry | {"video_name": "swan"}]))
    (data / "edit_prompt" / "edit6_FiVE.json").write_text(json.dumps([entry]))
    suite = _converted("five", tmp_path / "FiVE", tmp_path)
    assert [i.id for i in suite.items] == ["bear-1-000", "swan-1-001", "bear-6-000"]
    assert (suite.items[0].prompt, suite.items[0].source_prompt) == ("A lion walks.", "A bear walks.")
    assert [i.edit_type for i in suite.items] == ["replace-rigid", "replace-rigid", "remove"]
    words = ["--methods", "plain", "--steps", "1", "--limit", "1", "--model", model, "--out", str(tmp_path / "out")]
    assert main(["bench", "run", str(tmp_path / "suite.jsonl"), *words]) == 0


def test_vace_benchmark(tmp_path, capsys):
    root = tmp_path / "VACE-Benchmark"
    for task in ("inpainting", "outpainting", "depth"):
        folder = root / "assets" / "examples" / task
        write_scene(0, folder)
        (folder / "source.mp4").rename(folder / "src_video.mp4")
        (folder / "mask.mp4").rename(folder / ("src_mask.mp4" if task != "depth" else "other.mp4"))
        (folder / "truth.mp4").rename(folder / ("ori_video.mp4" if task == "inpainting" else "unused.mp4"))
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"inpainting": "a cat", "outpainting": {"prompt": "a dog", "source_prompt": "x"}}))
    suite = _converted("vace", root, tmp_path, "--prompts", str(prompts))
    assert [(i.id, i.prompt, i.source_prompt) for i in suite.items] == [
        ("inpainting", "a cat", ""),
        ("outpainting", "a dog", "x"),
    ]
    assert [i.video.split("/")[-1] for i in suite.items] == ["ori_video.mp4", "src_video.mp4"]
    assert main(["bench", "convert", "vace", str(root), "--out", str(tmp_path / "s.jsonl")]) == 2
    assert "no prompt for inpainting" in capsys.readouterr().err and not (tmp_path / "s.jsonl").exists()


def test_davis(tmp_path, capsys):
    root = tmp_path / "DAVIS"
    for name in ("bear", "camel"):
        _jpegs(root / "JPEGImages" / "480p" / name, 5, 90)
        folder = root / "Annotations" / "480p" / name
        folder.mkdir(parents=True)
        for i in range(5):
            index = np.zeros((24, 32), np.uint8)
            index[4:12, 4:12] = 2
            image = Image.fromarray(index, "P")
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            image.save(folder / f"{i:05d}.png")
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"camel": "a horse"}))
    suite = _converted("davis", root, tmp_path, "--prompts", str(prompts))
    assert [(i.id, i.prompt, i.fps) for i in suite.items] == [("camel", "a horse", 24)]
    prompts.write_text(json.dumps({"camle": "a horse"}))
    words = ["bench", "convert", "davis", str(root), "--out", str(tmp_path / "s.jsonl"), "--prompts", str(prompts)]
    assert main(words) == 2 and "--prompts names camle" in capsys.readouterr().err


def test_a_plain_folder(tmp_path, capsys):
    root = tmp_path / "mine"
    write_scene(0, root / "one")
    (root / "one" / "source.mp4").rename(root / "one" / "video.mp4")
    (root / "one" / "prompt.txt").write_text("a blue star\n")
    _jpegs(root / "two" / "video", 5, 90)
    Image.fromarray(np.eye(24, 32, dtype=np.uint8) * 255).save(root / "two" / "mask.png")
    (root / "two" / "prompt.txt").write_text("a cat")
    (root / "two" / "source_prompt.txt").write_text("a dog")
    suite = _converted("folder", root, tmp_path)
    assert [(i.id, i.prompt, i.source_prompt, bool(i.truth)) for i in suite.items] == [
        ("one", "a blue star", "", True),
        ("two", "a cat", "a dog", False),
    ]
    for change, message in [("prompt.txt", "has no prompt.txt"), ("mask.png", "has no mask; expected")]:
        kept = (root / "two" / change).read_bytes()
        (root / "two" / change).unlink()
        assert main(["bench", "convert", "folder", str(root), "--out", str(tmp_path / "s.jsonl")]) == 2
        assert message in capsys.readouterr().err
        (root / "two" / change).write_bytes(kept)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("five", "has no folder data"),
        ("vace", "has no folder assets"),
        ("davis", "no folder Ann"),
        ("magic", "unknown"),
    ],
)
def test_another_layout_is_named(kind, message, tmp_path, capsys):
    assert main(["bench", "convert", kind, str(tmp_path), "--out", str(tmp_path / "s.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_results_of_a_suite_stay_with_it_wherever_one_stands(tmp_path, monkeypatch):
    """The built-in suites have no files, so the folder that one stands in is nothing to them."""
    place, out = Workplace(tmp_path), tmp_path
    scene = shapes_suite("shapes", range(1)).items[0]
    _describe(out, Suite("shapes", tmp_path / "a", (scene,)), place)
    _describe(out, Suite("shapes", tmp_path / "b", (scene,)), place)
    with pytest.raises(ValueError, match="holds results of the suite 'shapes' in .*; give another folder"):
        _describe(out, Suite("others", tmp_path / "a", (scene,)), place)
    with pytest.raises(ValueError, match="holds results of another 'scene-00000'"):
        _describe(out, Suite("shapes", tmp_path / "a", (replace(scene, prompt="x"),)), place)
    with pytest.raises(ValueError, match="in .*b; give another folder"):
        _describe(out, Suite("shapes", tmp_path / "a", (Item("x", "a prompt", video="v.mp4", mask="m.png"),)), place)
