"""What refuses an edit's destination, before anything is made."""

import os
from pathlib import Path

import pytest

from kvlock.editing.destination import KEPT, check_out, claimed_out, kept_for
from kvlock.editing.job import EditJob
from kvlock.work.claim import working_folder

NOWHERE = dict(clip="nowhere.mp4", mask="nowhere.png", prompts=("a",), model="shapes")


def job(**change) -> EditJob:
    return EditJob(**NOWHERE | change)


@pytest.fixture
def sources(tmp_path):
    """A clip, a mask, a folder of frames and a model's, by name."""
    for name in ("clip.mp4", "mask.png", "frames/0.png", "frames/1.png", "model/model_index.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("name", ["edited.mp4", "comparison.mp4", "sheet.png", "run.json"])
@pytest.mark.parametrize("source", ["clip", "mask"])
def test_an_edit_is_not_written_over_what_it_is_made_from(sources, source, name, link):
    out = sources / "out"
    out.mkdir()
    if link is None:
        path = out / name
        path.write_text("the source")
    else:
        path = sources / "clip.mp4"
        link(path, out / name)
    with pytest.raises(ValueError, match=f"{name} is the {source} itself; give another name"):
        check_out(job(**{source: path}), out, overwrite=True)
    assert path.read_text() in ("the source", "clip.mp4")


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_one_file_is_not_written_over_the_clip(sources, link):
    clip, out = sources / "clip.mp4", sources / "other.mp4"
    if link:
        link(clip, out)
    with pytest.raises(ValueError, match="is the clip itself"):
        check_out(job(clip=clip), out if link else clip, overwrite=True)


def test_a_link_to_where_the_edit_goes_is_the_clip_itself(sources):
    (sources / "linked.mp4").symlink_to(sources / "clip.mp4")
    with pytest.raises(ValueError, match="is the clip itself"):
        check_out(job(clip=sources / "linked.mp4"), sources / "clip.mp4", overwrite=True)


@pytest.mark.parametrize("out", ["frames", "frames/out", "frames/out.mp4", "linked/out"])
def test_an_edit_does_not_go_among_the_frames(sources, out):
    (sources / "linked").symlink_to(sources / "frames")
    for source in ("clip", "mask", "model"):
        with pytest.raises(ValueError, match=f"lies in the {source}'s folder"):
            check_out(job(**{source: str(sources / "frames")}), sources / out, overwrite=True)


def test_a_frame_that_is_a_link_to_the_edit_is_found(sources):
    (sources / "out").mkdir()
    (sources / "out" / "sheet.png").write_text("a frame")
    (sources / "frames" / "2.png").symlink_to(sources / "out" / "sheet.png")
    with pytest.raises(ValueError, match="sheet.png is the clip itself"):
        check_out(job(clip=sources / "frames"), sources / "out", overwrite=True)


def test_a_clip_may_lie_beside_the_edit(sources):
    check_out(job(clip=sources / "clip.mp4", mask=sources / "mask.png"), sources, overwrite=True)
    check_out(job(clip=sources / "clip.mp4"), sources / "new", overwrite=False)


@pytest.mark.parametrize(
    "there, seeds, blocked",
    [
        ("edited.mp4/a", (0,), "edited.mp4"),
        ("run.json/a", (0,), "run.json"),
        ("variant-1", (0, 1), "variant-1"),
        ("variant-2/trace.json/a", (0, 1), "trace.json"),
        ("sheet.png/a", (0, 1), "sheet.png"),
    ],
)
def test_folders_and_files_in_the_way_are_refused(tmp_path, there, seeds, blocked):
    (tmp_path / "out" / there).parent.mkdir(parents=True)
    (tmp_path / "out" / there).write_text("mine")
    with pytest.raises(ValueError, match=f"{blocked} is in the way; move it, or give another"):
        check_out(job(seeds=seeds), tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    "name, why",
    [
        ("a" * 256, "the name is too long"),
        ("ä" * 128, "the name is too long"),
        ("/".join(["b" * 250] * 17), "the name is too long"),
        ("bad\udcff", "is not Unicode"),
        ("to nothing", "is a link to nothing"),
        ("not there/out", "does not exist; make it first"),
        ("edit.webm", "ends in .mp4 or .mkv"),
    ],
)
def test_names_that_cannot_be_written_are_refused(tmp_path, name, why):
    (tmp_path / "to nothing").symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match=why):
        check_out(job(), tmp_path / name, overwrite=False)


@pytest.mark.parametrize("name", ["", "."])
def test_no_out_is_not_the_folder_that_one_stands_in(name):
    with pytest.raises(ValueError, match="expected a folder of its own"):
        check_out(job(), Path(name), overwrite=True)


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "with space", "new.mkv"])
def test_names_that_can_be_written_are_claimed(tmp_path, name):
    with claimed_out(job(), tmp_path / name, overwrite=False) as work:
        assert work.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_meanwhile_is_seen(tmp_path):
    """The second waits for nobody: it is refused while the first works, and after it."""
    with claimed_out(job(), tmp_path / "out", overwrite=False):
        with pytest.raises(ValueError, match="is being written by process"):
            with claimed_out(job(), tmp_path / "out", overwrite=True):
                raise AssertionError("the block must not run")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "edited.mp4").write_text("the first")
    with pytest.raises(ValueError, match="is not empty"):
        with claimed_out(job(), tmp_path / "out", overwrite=False):
            raise AssertionError("the block must not run")


def test_an_edit_that_was_kept_is_not_lost_to_the_next(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OSError) as failed, claimed_out(job(), out, overwrite=False) as work:
        (work / KEPT).mkdir()
        raise OSError("full")
    assert failed.value.__notes__ == [f"the edit is kept; to write it, type kvlock finish {out}"]
    with pytest.raises(ValueError, match="type kvlock finish .*, or add --overwrite"):
        with claimed_out(job(), out, overwrite=False):
            raise AssertionError("the block must not run")
    with kept_for(out, overwrite=False) as work:
        assert (work / KEPT).is_dir()
    with pytest.raises(ValueError, match="there is no edit to finish"), kept_for(out, False):
        raise AssertionError("the block must not run")
    assert not working_folder(out).exists()


def test_an_edit_that_was_kept_goes_with_overwrite(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OSError), claimed_out(job(), out, overwrite=False) as work:
        (work / KEPT).mkdir()
        raise OSError("full")
    with claimed_out(job(), out, overwrite=True) as work:
        assert not (work / KEPT).exists()
