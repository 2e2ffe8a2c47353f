"""Where an edit goes: what can refuse it, and the claim on it, before anything is made."""

import errno
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvlock.editing.job import EditJob
from kvlock.media.files import HIDDEN
from kvlock.work.claim import claimed, in_the_way, working_folder

RUN = "run.json"
KEPT = "kept"  # in the working folder: a denoised edit that is not written yet
OF_AN_EDIT = ("edited.mp4", "comparison.mp4", "sheet.png", "trace.json", "trace.png")
VIDEOS = (".mp4", ".mkv")  # an `out` that ends so is the edited clip alone
OTHER_VIDEOS = (".mov", ".webm", ".avi", ".gif", ".m4v")


@contextmanager
def claimed_out(job: EditJob, out: Path, overwrite: bool) -> Iterator[Path]:
    """A working folder for an edit that is to be written to `out`; no other process gets one.

    An edit that fails after its latents were kept leaves them, and its error says how to go on.
    Raises ValueError where the edit could not be written.
    """
    check_out(job, out, overwrite)
    with claimed(out, KEPT) as work:
        check_out(job, out, overwrite)  # another process may have written there meanwhile
        if (work / KEPT).exists() and not overwrite:
            raise ValueError(
                f"--out {out}: an edit was made for it and not written; type kvlock finish {out}, "
                "or add --overwrite to make another"
            )
        shutil.rmtree(work / KEPT, ignore_errors=True)
        with _finishable(out, work, overwrite):
            yield work


@contextmanager
def kept_for(out: Path, overwrite: bool) -> Iterator[Path]:
    """The working folder of an edit that was made for `out` and not written.

    Raises ValueError where there is none.
    """
    if not (working_folder(out) / KEPT).is_dir():
        raise ValueError(f"there is no edit to finish for {out}; give the --out of one that failed")
    with claimed(out, KEPT) as work, _finishable(out, work, overwrite):
        yield work


@contextmanager
def _finishable(out: Path, work: Path, overwrite: bool) -> Iterator[None]:
    """An error in the block says how to go on, where the edit's latents are kept."""
    try:
        yield
    except BaseException as error:
        if (work / KEPT).exists():
            words = ["kvlock", "finish", str(out), *(["--overwrite"] if overwrite else [])]
            error.add_note(f"the edit is kept; to write it, type {shlex.join(words)}")
        raise


def check_out(job: EditJob, out: Path, overwrite: bool) -> None:
    """Raise ValueError where `write` could not write there."""
    if out == Path():
        raise ValueError(f"--out is {str(out)!r}; expected a folder of its own, or an .mp4 file")
    if out.suffix.lower() in OTHER_VIDEOS:
        raise ValueError(f"--out {out}: expected a folder, or a file that ends in .mp4 or .mkv")
    files = files_for(job, out)
    _check_names(out, files)
    parent = out.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"--out {out}: the folder {parent} does not exist; make it first")
    if not os.access(out if out.is_dir() else parent, os.W_OK):
        raise ValueError(f"--out {out}: that folder cannot be written to; give another")
    if out.is_symlink() and not out.exists():
        raise ValueError(f"--out {out} is a link to nothing; give another name")
    if out.exists() and out.is_dir() == is_file(out):
        kind = "folder" if out.is_dir() else "file"
        raise ValueError(f"--out {out} is a {kind}; give another name")
    if not overwrite and is_file(out) and out.exists():
        raise ValueError(f"--out {out} exists; give another name or --overwrite")
    if not overwrite and out.is_dir() and any(not f.name.startswith(HIDDEN) for f in out.iterdir()):
        raise ValueError(f"--out {out} is not empty; give another folder or --overwrite")
    if len(job.variants) > 1 and is_file(out):
        raise ValueError(f"--out {out} is one file; several edits need a folder")
    blocked = in_the_way(out, files)
    if blocked:
        raise ValueError(f"{blocked} is in the way; move it, or give another --out")
    _check_sources(job, out, files)


def is_file(out: Path) -> bool:
    """Whether `out` names one video file instead of a folder."""
    return out.suffix.lower() in VIDEOS


def files_for(job: EditJob, out: Path) -> list[Path]:
    """All that `write` may write."""
    if is_file(out):
        return [out]
    count = len(job.variants)
    if count == 1:
        return [out / name for name in (*OF_AN_EDIT, RUN)]
    variants = [
        out / f"variant-{number}" / name for number in range(1, count + 1) for name in OF_AN_EDIT
    ]
    return [*variants, out / "sheet.png", out / RUN]


def _check_names(out: Path, files: list[Path]) -> None:
    try:
        os.fspath(out.absolute()).encode("utf-8")
        for file in files:
            os.stat(file)
    except UnicodeEncodeError:
        raise ValueError(f"--out {ascii(str(out))} is not Unicode; give another name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"--out {out}: the name is too long; give a shorter one") from None


def _check_sources(job: EditJob, out: Path, files: list[Path]) -> None:
    """Raise ValueError where a file of the edit would replace one that it is made from, or join them."""
    paths = {"clip": job.clip, "mask": job.mask, "model": job.model}
    for name, source in ((n, Path(p)) for n, p in paths.items() if isinstance(p, (str, Path))):
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"--out {out} lies in the {name}'s folder {source}; give another")
        read = [*source.iterdir()] if source.is_dir() else [source]
        ids = {(s.st_dev, s.st_ino) for s in (p.stat() for p in read if p.exists())}
        for file in (f for f in files if f.exists()):
            if (file.stat().st_dev, file.stat().st_ino) in ids:
                raise ValueError(f"--out {out}: {file} is the {name} itself; give another name")
