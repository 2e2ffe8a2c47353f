"""One process at a time makes what is to stand under a name."""

import os
import signal
import subprocess
import sys

import pytest

from kvlock.media.files import HIDDEN
from kvlock.work.claim import claimed, publish, working_folder

KEPT = "kept"


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_the_second_is_refused_at_the_start_and_the_first_loses_nothing(tmp_path, is_new, suffix):
    out = tmp_path / f"out{suffix}"
    if not is_new:
        out.mkdir()
    (tmp_path / "same").symlink_to(tmp_path)
    with claimed(out, KEPT) as work:
        (work / "a").write_text("first")
        for spelling in (out, tmp_path / "same" / out.name, tmp_path / "same" / ".." / out):
            with pytest.raises(ValueError, match=f"is being written by process {os.getpid()} on"):
                with claimed(spelling, KEPT):
                    raise AssertionError("the block must not run")
        assert (work / "a").read_text() == "first"
        with claimed(tmp_path / "another", KEPT) as other:
            assert other != work
    assert names(tmp_path) == (["same"] if is_new else [out.name, "same"])


def test_a_folder_that_came_into_being_meanwhile_is_still_claimed(tmp_path):
    out = tmp_path / "out"
    with claimed(out, KEPT):
        out.mkdir()
        with pytest.raises(ValueError, match="is being written"), claimed(out, KEPT):
            raise AssertionError("the block must not run")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_failure_leaves_what_is_kept_and_nothing_else(tmp_path, error, is_new):
    out = tmp_path / "out"
    if not is_new:
        out.mkdir()
    before = names(tmp_path)
    with pytest.raises(error), claimed(out, KEPT) as work:
        (work / "half").write_text("half")
        raise error
    assert names(tmp_path) == before and (is_new or names(out) == [])
    with pytest.raises(error), claimed(out, KEPT) as work:
        (work / "half").mkdir()
        (work / KEPT).mkdir()
        raise error
    assert KEPT in names(working_folder(out)) and "half" not in names(working_folder(out))
    with claimed(out, KEPT) as work:
        assert (work / KEPT).is_dir()
    assert names(tmp_path) == before and (is_new or names(out) == [])


KILLED = """
import sys, time
from pathlib import Path
from kvlock.work.claim import claimed
with claimed(Path(sys.argv[1]), "kept") as work:
    (work / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_dead_process_has_no_claim(tmp_path, number, is_new):
    out = tmp_path / "out"
    if not is_new:
        out.mkdir()
    command = [sys.executable, "-c", KILLED, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=f"written by process {owner.pid} on"):
            with claimed(out, KEPT):
                raise AssertionError("the block must not run")
        owner.send_signal(number)
    assert working_folder(out).name.startswith(HIDDEN) and "half" in names(working_folder(out))
    with claimed(out, KEPT) as work:
        assert "half" not in names(work)
    assert names(tmp_path) == ([] if is_new else ["out"])


def test_what_the_dead_left_for_other_names_goes_too(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        left = working_folder(tmp_path / "out")
        os.utime(left / "owner", (0, 0))
        with claimed(tmp_path / "other", KEPT):
            assert left.is_dir()  # its owner lives
        owner.send_signal(signal.SIGKILL)
    (left / KEPT).mkdir()
    with claimed(tmp_path / "other", KEPT):
        assert left.is_dir()  # something is kept there
    (left / KEPT).rmdir()
    with claimed(tmp_path / "other", KEPT):
        assert not left.exists()
    assert names(tmp_path) == []


CONTEST = """
import sys
from pathlib import Path
from kvlock.work.claim import claimed, publish
won = 0
for _ in range(50):
    try:
        with claimed(Path(sys.argv[1]), "kept") as work:
            (work / "alone").mkdir()  # fails where two are in it
            (work / "alone").rmdir()
            won += 1
    except ValueError as error:
        assert "is being written by" in str(error), error
print(won)
"""


def test_many_that_come_and_go_never_meet(tmp_path):
    command = [sys.executable, "-c", CONTEST, str(tmp_path / "out")]
    crowd = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    won = [int(process.communicate()[0]) for process in crowd]
    assert all(process.returncode == 0 for process in crowd) and sum(won) >= 1
    assert names(tmp_path) == []


def made(folder, text: str = "new"):
    """Two files and one below."""
    (folder / "inner").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "inner/c.txt"):
        (folder / name).write_text(text)
    return folder


def test_a_new_folder_appears_in_one_step(tmp_path):
    publish(made(tmp_path / "made"), tmp_path / "out", overwrite=False)
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["a.txt", "b.txt", "inner"]


def test_files_go_into_an_old_folder_beside_what_is_there(tmp_path):
    out = made(tmp_path / "out", "old")
    (out / "inner" / "kept.txt").write_text("old")
    publish(made(tmp_path / "made"), out, overwrite=True)
    assert (out / "inner" / "c.txt").read_text() == "new" == (out / "a.txt").read_text()
    assert (out / "inner" / "kept.txt").read_text() == "old"


@pytest.mark.parametrize(
    "blocked, overwrite", [("b.txt/", True), ("inner", True), ("a.txt", False), ("b.txt/", False)]
)
def test_what_is_in_the_way_moves_nothing(tmp_path, blocked, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    (out / blocked).mkdir() if blocked.endswith("/") else (out / blocked).write_text("old")
    before = names(out)
    with pytest.raises(FileExistsError, match=f"{blocked.strip('/')} is in the way"):
        publish(made(tmp_path / "made"), out, overwrite)
    assert names(out) == before and (out / blocked).is_dir() == blocked.endswith("/")


def test_a_file_is_not_written_over_one_that_came_meanwhile(tmp_path):
    (tmp_path / "new").write_text("new")
    (tmp_path / "out.mp4").write_text("old")
    with pytest.raises(FileExistsError, match="out.mp4 is in the way"):
        publish(tmp_path / "new", tmp_path / "out.mp4", overwrite=False)
    publish(tmp_path / "new", tmp_path / "out.mp4", overwrite=True)
    assert (tmp_path / "out.mp4").read_text() == "new" and names(tmp_path) == ["out.mp4"]
