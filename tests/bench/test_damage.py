"""Results that are damaged, names that are markup, links that lead outside."""

import json
import os
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlock.bench.report import write_report
from kvlock.bench.results import read_results
from kvlock.bench.rows import read_rows
from kvlock.bench.suite import Item, read_suite, write_suite
from kvlock.bench.tables import markdown, print_tables
from kvlock.cli import main

DAMAGED = {
    "empty": "",
    "half": '{"job": {"item": "scene-1',
    "a list": "[]",
    "no job": '{"scores": {}, "seconds": 1, "device": "cpu"}',
    "a wrong seed": None,
}


def _damage(path, content):
    if content is None:
        record = json.loads(path.read_text())
        record["job"]["seed"] = "0"
        content = json.dumps(record)
    path.write_text(content)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_named_by_the_table(results, tmp_path, content, capsys):
    out = shutil.copytree(results, tmp_path / "out")
    path = next(out.glob("results/*plain*/result.json"))
    _damage(path, content)
    assert main(["bench", "table", str(out)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said and said.endswith("kvlock bench run makes it again\n")


def test_a_damaged_result_is_named_and_made_again_by_the_run(finished, tmp_path, capsys):
    out, words = finished
    copy = shutil.copytree(out, tmp_path / "out")
    paths = sorted(copy.glob("results/*plain*/result.json"))[:2]
    before = [path.read_text() for path in paths]
    _damage(paths[0], "")
    _damage(paths[1], None)
    assert main([*words[:-1], str(copy)]) == 0
    said = capsys.readouterr().err
    assert all(f"{path}: " in said for path in paths) and said.count("it is made again") == 2
    for path, text in zip(paths, before):
        one, other = json.loads(text), json.loads(path.read_text())
        assert one["scores"] == other["scores"] and one["job"] == other["job"]


def test_what_stands_beside_a_result_is_named_where_it_is_damaged(results, tmp_path):
    out = shutil.copytree(results, tmp_path / "out")
    folder = next(out.glob("results/*plain*"))
    for name, content in (
        ("networks.json", '{"scores": 1}'),
        ("trace.json", '[{"variance": "x"}]'),
    ):
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=rf"{re.escape(str(folder / name))}: .*expected"):
            [result.trace() for result in read_results(out)[1]]
        (folder / name).unlink()
        shutil.copy(results / "results" / folder.name / "trace.json", folder / "trace.json")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"items": {}}, "items is {}; expected a list"),
        ({"items": [{"id": "a"}]}, "field 'prompt' is missing"),
        ({"items": []}, "does not have 'scene-10000'"),
        ({"name": None}, "name is None; expected text"),
    ],
)
def test_a_damaged_suite_record_is_named(results, tmp_path, change, sentence):
    out = shutil.copytree(results, tmp_path / "out")
    record = json.loads((out / "suite.json").read_text()) | change
    (out / "suite.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_results(out)
    assert str(out / "suite.json") in str(error.value)


MARKUP = "<script>alert(1)</script>|`[red]\"'&$\\frac$"


def test_names_are_text_in_every_report(results, tmp_path, capsys):
    """The model's folder, the suite, the prompts and the kind of edit all have markup in them."""
    out = shutil.copytree(results, tmp_path / "out")
    for path in out.glob("results/*/result.json"):
        record = json.loads(path.read_text())
        record["job"] |= {"model": MARKUP}
        record["device"] = MARKUP
        path.write_text(json.dumps(record))
    suite = json.loads((out / "suite.json").read_text())
    suite["name"] = MARKUP
    for item in suite["items"]:
        item |= {"prompt": MARKUP, "source_prompt": MARKUP, "edit_type": MARKUP}
    (out / "suite.json").write_text(json.dumps(suite))
    rows = read_rows(out)
    print_tables(rows)
    assert MARKUP in capsys.readouterr().out
    text = markdown(rows, MARKUP)
    page = write_report(out, 9, text).read_text()
    assert page.count("<script>") == page.count("</script>") == 1  # its own
    assert "alert(1)" in page and "<script>" not in text and "\\|\\`\\[red\\]" in text


def test_nothing_is_written_through_a_link_that_leads_outside(results, tmp_path, capsys):
    out = shutil.copytree(results, tmp_path / "out")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("report.html", "table.md", "table.csv"):
        (outside / name).write_text("mine")
        (out / name).symlink_to(outside / name)
    assert main(["bench", "table", str(out)]) == 0
    assert all((outside / n).read_text() == "mine" for n in os.listdir(outside))
    assert "<section>" in (out / "report.html").read_text()
    before = sorted(outside.iterdir())
    for name in ("clips", "results"):
        shutil.rmtree(out / name)
        (out / name).symlink_to(outside)
    if (source := results / "results").is_dir():
        shutil.copytree(source, out / "kept")
    words = ["--methods", "plain", "--limit", "1", "--steps", "2", "--model", "shapes"]
    assert main(["bench", "run", "shapes-validation", *words, "--out", str(out)]) == 2
    assert f"results leads out of {out}" in capsys.readouterr().err
    (out / "results").unlink()
    (out / "kept").rename(out / "results")
    assert main(["bench", "table", str(out)]) == 2
    assert f"leads out of {out}" in capsys.readouterr().err
    assert sorted(outside.iterdir()) == before


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_prompts_of_any_unicode_survive_a_suites_round_trip(tmp_path_factory, prompt, source):
    path = tmp_path_factory.mktemp("suite") / "suite.jsonl"
    items = [Item("a", prompt, source, scene=1), Item("b", source + "x", prompt, scene=2)]
    write_suite(items, path)
    assert list(read_suite(str(path)).items) == items


@pytest.mark.parametrize(
    "prompt", ["a\u2028b", "a\x85b", "a\x0b\x1c\x00b", "\ud800x", "x\r\n", "😀"]
)
def test_line_ends_of_every_kind_and_halves_of_pairs_survive(tmp_path, prompt):
    write_suite([Item("a", prompt, scene=1)], tmp_path / "s.jsonl")
    assert read_suite(str(tmp_path / "s.jsonl")).items == (Item("a", prompt, scene=1),)
    text = (tmp_path / "s.jsonl").read_bytes()
    (tmp_path / "s.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert read_suite(str(tmp_path / "s.jsonl")).items == (Item("a", prompt, scene=1),)
