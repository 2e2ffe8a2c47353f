"""Files and folders that are whole or absent."""

import json
import os
import signal
import subprocess
import sys

import pytest

from kvlock.media.files import HIDDEN, whole_file, whole_folder, write_json, write_text


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_when_it_is_done_and_not_before(tmp_path, before):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with whole_file(path) as unfinished:
        unfinished.write_text("half")
        assert unfinished.suffix == ".txt" and unfinished.name.startswith(HIDDEN)
        assert (path.read_text() if path.exists() else None) == before
        unfinished.write_text("whole")
    assert path.read_text() == "whole" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_file_leaves_the_old_one(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), whole_file(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and names(tmp_path) == ["a.txt"]  # the last one to finish


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "elsewhere").read_text() == "old"
    assert not (tmp_path / "a.txt").is_symlink() and (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 125 + ".json", "no suffix", ".hidden"])
def test_any_name_that_the_folder_takes_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "text")
    assert names(tmp_path) == [name]


def test_text_is_utf_8_and_json_is_read_back(tmp_path):
    write_text(tmp_path / "a.txt", "ein Käfer 甲虫")
    assert (tmp_path / "a.txt").read_bytes().decode("utf-8") == "ein Käfer 甲虫"
    record = {"prompt": "甲虫 \ud800 \x00", "values": [1.5, None, True]}
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text()) == record
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"path": tmp_path})
    assert names(tmp_path) == ["a.json", "a.txt"]


def test_a_new_folder_appears_with_all_its_files(tmp_path):
    out = tmp_path / "out"
    with whole_folder(out) as folder:
        (folder / "a.txt").write_text("a")
        (folder / "inner").mkdir()
        (folder / "inner" / "b.txt").write_text("b")
        assert not out.exists()
    assert names(tmp_path) == ["out"] and names(out) == ["a.txt", "inner"]
    other = tmp_path / "made by hand"
    other.mkdir()
    assert out.stat().st_mode == other.stat().st_mode  # others may read it as any folder


def test_files_go_into_an_old_folder_beside_what_is_there(tmp_path):
    for name in ("a.txt", "kept.txt"):
        (tmp_path / name).write_text("old")
    with whole_folder(tmp_path) as folder:
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    found = {name: (tmp_path / name).read_text() for name in names(tmp_path)}
    assert found == {"a.txt": "new", "b.txt": "new", "kept.txt": "old"}


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_nothing(tmp_path, error, is_new):
    out = tmp_path / "out"
    if not is_new:
        out.mkdir()
        (out / "a.txt").write_text("old")
    with pytest.raises(error), whole_folder(out) as folder:
        (folder / "a.txt").write_text("half")
        raise error
    assert names(tmp_path) == ([] if is_new else ["out"])
    assert is_new or (names(out) == ["a.txt"] and (out / "a.txt").read_text() == "old")


def test_a_folder_in_the_way_of_a_file_moves_none(tmp_path):
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.txt is a folder; move it away"):
        with whole_folder(tmp_path) as folder:
            for name in ("a.txt", "b.txt"):
                (folder / name).write_text("new")
    assert names(tmp_path) == ["b.txt"]


def test_a_file_of_the_folders_name_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(NotADirectoryError, match="out is a file; expected a folder"):
        with whole_folder(tmp_path / "out"):
            raise AssertionError("the block must not run")
    assert (tmp_path / "out").read_text() == "old"


def test_two_that_make_one_new_folder_are_not_merged(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileExistsError, match="made by another process meanwhile"):
        with whole_folder(out) as first:
            (first / "a.txt").write_text("first")
            with whole_folder(out) as second:
                (second / "a.txt").write_text("second")
    assert names(tmp_path) == ["out"] and (out / "a.txt").read_text() == "second"


KILLED = """
import sys, time
from kvlock.media.files import whole_file, whole_folder
with {kind}(sys.argv[1]) as unfinished:
    (unfinished / "a.txt" if unfinished.is_dir() else unfinished).write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_a_killed_writer_leaves_only_a_hidden_name(tmp_path, kind):
    command = [sys.executable, "-c", KILLED.format(kind=kind), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        writer.send_signal(signal.SIGKILL)
    (left,) = names(tmp_path)
    assert left.startswith(HIDDEN)
