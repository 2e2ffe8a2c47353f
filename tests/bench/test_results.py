"""What a run leaves, read again; what one folder may hold."""

import json
import shutil
from dataclasses import replace

import pytest

from kvlock.bench.results import record_suite
from kvlock.bench.rows import read_rows
from kvlock.bench.suite import Item, Suite, shapes_suite
from kvlock.cli import main
from kvlock.work.folder import JobFolder


def test_two_configs_of_one_method_are_not_averaged(finished, model, tmp_path, capsys):
    for threshold in ("0.02", "0.03"):
        words = [
            "shapes-validation",
            "--methods",
            "kv-lock",
            "--limit",
            "1",
            "--steps",
            "2",
            "--threshold",
            threshold,
        ]
        assert main(["bench", "run", *words, "--model", model, "--out", str(tmp_path)]) == 0
    assert main(["bench", "table", str(tmp_path)]) == 2
    assert "kv-lock on" in (said := capsys.readouterr().err) and "two configs" in said


def test_results_from_before_an_option_was_added_are_of_the_same_config(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "old")
    before = [(r.method, r.values) for r in read_rows(tmp_path / "old")]
    path = next((tmp_path / "old" / "results").glob("*.kv-lock.*/result.json"))
    result = json.loads(path.read_text())
    config = result["job"]["config"]
    del config["source"]["inversion"], config["signal"]["prediction"]
    path.write_text(json.dumps(result))
    assert [(r.method, r.values) for r in read_rows(tmp_path / "old")] == before
    config["signal"]["colour"] = "red"
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match="is of another version of kvlock .*colour"):
        read_rows(tmp_path / "old")


def test_a_comparison_is_of_equal_steps(model, tmp_path, capsys):
    for method, steps in (("plain", "2"), ("kv-lock", "3")):
        words = ["shapes-validation", "--methods", method, "--limit", "1", "--steps", steps]
        assert main(["bench", "run", *words, "--model", model, "--out", str(tmp_path)]) == 0
    assert main(["bench", "table", str(tmp_path)]) == 2
    assert "num_inference_steps" in capsys.readouterr().err


def test_results_of_a_suite_stay_with_it_wherever_one_stands(tmp_path, monkeypatch):
    """The built-in suites have no files, so the folder that one stands in is nothing to them."""
    folder = JobFolder(tmp_path)
    scene = shapes_suite("shapes", range(1)).items[0]
    record_suite(folder, Suite("shapes", tmp_path / "a", (scene,)))
    record_suite(folder, Suite("shapes", tmp_path / "b", (scene,)))
    with pytest.raises(
        ValueError, match="holds results of the suite 'shapes' in .*; give another folder"
    ):
        record_suite(folder, Suite("others", tmp_path / "a", (scene,)))
    with pytest.raises(ValueError, match="holds results of another 'scene-00000'"):
        record_suite(folder, Suite("shapes", tmp_path / "a", (replace(scene, prompt="x"),)))
    with pytest.raises(ValueError, match="in .*b; give another folder"):
        record_suite(
            folder,
            Suite("shapes", tmp_path / "a", (Item("x", "a prompt", video="v.mp4", mask="m.png"),)),
        )
