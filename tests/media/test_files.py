"""Files and folders that are whole or absent."""

import json
import os
import signal
import subprocess
import sys

import pytest

from kvlock.media.files import HIDDEN, whole_file, write_json, write_text


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


KILLED = """
import sys, time
from kvlock.media.files import whole_file
with whole_file(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_writer_leaves_is_hidden_and_goes_when_the_next_one_writes(tmp_path, number):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        write_text(tmp_path / "other", "")
        (left,) = set(names(tmp_path)) - {"other"}  # it belongs to a writer that lives
        writer.send_signal(number)
    assert left.startswith(HIDDEN) and left in names(tmp_path)
    write_text(tmp_path / "other", "")
    assert names(tmp_path) == ["other"]
