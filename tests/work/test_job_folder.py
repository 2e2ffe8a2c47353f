"""Jobs that several processes share through one folder: one does each, and writes it whole or not
at all.
"""

import json
import multiprocessing
import os
import time

import pytest

from kvlock.work.folder import STALE_AFTER, JobFolder, read_records
from support.contest import contest

JOB = "scene-00001.shapes.plain.s0"
DEAD = f"{os.uname().nodename}:999999999:x"
ALIVE = f"{os.uname().nodename}:{os.getpid()}:x"


def test_of_several_processes_one_gets_each_job(tmp_path):
    """Half of the jobs are under the lease of a process that died."""
    (tmp_path / "leases").mkdir()
    for number in range(0, 40, 2):
        (tmp_path / "leases" / f"job-{number}").write_text(DEAD)
    context = multiprocessing.get_context("spawn")
    wins, start = context.Queue(), context.Event()
    workers = [context.Process(target=contest, args=(tmp_path, wins, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    won = sorted(wins.get(timeout=120) for _ in range(40))
    for worker in workers:
        worker.join()
    assert won == list(range(40)) and wins.empty()


def _claims(folder):
    with folder.claimed([JOB]) as mine:
        return mine


def test_leases_of_the_living_hold_and_those_of_the_dead_do_not(tmp_path):
    first, second = JobFolder(tmp_path), JobFolder(tmp_path)
    lease = tmp_path / "leases" / JOB
    with first.claimed([JOB]) as mine:
        assert mine and not _claims(second)
    assert not lease.exists() and _claims(second)
    for owner, age, free in [
        (DEAD, 0, True),
        (ALIVE, 0, False),
        (ALIVE, STALE_AFTER + 5, True),  # a number that another process has now
        ("another-machine:1:x", 0, False),
        ("another-machine:1:x", STALE_AFTER + 5, True),
    ]:
        lease.write_text(owner)
        os.utime(lease, (time.time() - age,) * 2)
        assert _claims(first) == free, (owner, age)


def test_who_lost_a_lease_leaves_the_winners_alone(tmp_path):
    folder = JobFolder(tmp_path)
    lease = tmp_path / "leases" / JOB
    with folder.claimed([JOB]) as mine:
        assert mine
        lease.write_text("another-machine:1:x")
    assert lease.read_text() == "another-machine:1:x"


def test_work_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("kvlock.work.folder.BEAT", 0.01)
    folder, lease = JobFolder(tmp_path), tmp_path / "leases" / JOB
    with folder.claimed([JOB]):
        os.utime(lease, (0, 0))
        deadline = time.time() + 30
        while lease.stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.01)
        assert lease.stat().st_mtime > 0


def test_a_batch_is_claimed_as_long_as_one_of_its_jobs_is_not_done(tmp_path):
    folder = JobFolder(tmp_path)
    batch = ["first", "second"]
    for job, expected in (("first", True), ("second", True)):
        with folder.claimed(batch) as mine:
            assert mine == expected
        with folder.writing(job, {}):
            pass
    with folder.claimed(batch) as mine:
        assert not mine


def test_a_damaged_result_is_replaced_and_a_whole_one_kept(tmp_path):
    folder = JobFolder(tmp_path)
    (folder.results / JOB).mkdir()
    (folder.results / JOB / "edited.mp4").write_text("left over")
    for text in ("first", "second"):
        with folder.writing(JOB, {"which": text}):
            pass
    assert json.loads((folder.results / JOB / "result.json").read_text()) == {"which": "first"}
    assert [p.name for p in (folder.results / JOB).iterdir()] == ["result.json"]


def test_a_result_that_fails_leaves_nothing(tmp_path):
    folder = JobFolder(tmp_path)
    with pytest.raises(KeyError), folder.writing(JOB, {}) as unfinished:
        (unfinished / "edited.mp4").write_text("half")
        raise KeyError("broken")
    assert not list(folder.results.iterdir()) and not folder.is_done(JOB)


def test_records_are_those_of_done_jobs(tmp_path):
    assert (
        read_records(tmp_path / "nowhere", dict, "") == {} and not (tmp_path / "nowhere").exists()
    )
    folder = JobFolder(tmp_path)
    with folder.writing("b", {"n": 2}), folder.writing("a", {"n": 1}):
        pass
    (folder.results / "damaged").mkdir()
    with folder.writing("c", {}):
        assert read_records(tmp_path, dict, "") == {"a": {"n": 1}, "b": {"n": 2}}
        assert list(read_records(tmp_path, dict, "")) == ["a", "b"]
