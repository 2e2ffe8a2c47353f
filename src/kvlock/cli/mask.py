"""`kvlock mask`: flags to a MaskJob; what is done stands in `kvlock.masks`."""

# pyright: reportInvalidTypeForm=false

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from kvlock.cli.groups import advanced, group, plain

if TYPE_CHECKING:
    from kvlock.masks.job import MaskJob

Words = tyro.conf.UseAppendAction[plain(tuple[str, ...], "X,Y@FRAME")]


@dataclass(frozen=True)
class MarkOptions:
    """What is meant, in one frame or several; @FRAME is 0 where it is left out."""

    box: tyro.conf.UseAppendAction[plain(tuple[str, ...], "X,Y,W,H@FRAME")] = ()
    """A box around the thing, in pixels; it may be given again for other frames."""
    point: Words = ()
    """A point on the thing; give as many as it takes."""
    not_point: Words = ()
    """A point beside it, where too much was taken."""
    text: plain(str, "WORDS") = ""
    """Find the thing by words; needs --finder, see --help-all."""
    track: advanced(Literal["flow", "sam2"]) = "flow"
    """Carries the frames through the clip: flow needs no weights, sam2 needs --sam2."""
    sam2: advanced(plain(str, "PATH")) = ""
    """A folder or hub id of SAM 2's video weights."""
    finder: advanced(plain(str, "PATH")) = ""
    """A folder or hub id of GroundingDINO's, OWLv2's or CLIPSeg's weights."""


@dataclass(frozen=True)
class MaskRefinements:
    """What is done to the mask at its end, in this order."""

    fill_holes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fill what the mask encloses."""
    smooth: plain(int, "FRAMES") = 0
    """Average the outline over so many frames on each side, so that it does not flicker."""
    shrink: plain(int, "PIXELS") = 0
    """Make it smaller on every side."""
    grow: plain(int, "PIXELS") = 0
    """Make it larger on every side."""
    box_mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take each frame's bounding box; VACE likes a generous one."""
    invert: tyro.conf.FlagCreatePairsOff[bool] = False
    """Mark the rest instead."""
    feather: plain(int, "PIXELS") = 0
    """Write soft.mp4, too, for other tools: its edges fade over so many pixels on each side."""


@dataclass(frozen=True)
class Mask:
    """Make a mask for every frame of a clip from a painted frame, a box, points, words or a file."""

    clip: tyro.conf.Positional[plain(str, "CLIP")]
    """A video file, or a folder of PNG/JPEG frames."""
    out: plain(str, "FOLDER")
    """Folder for mask.mp4, overlay.mp4, sheet.png, mask.json and mask.png."""
    marks: group(MarkOptions) = field(default_factory=MarkOptions)
    frame: tyro.conf.UseAppendAction[plain(tuple[str, ...], "FRAME=PATH")] = ()
    """A frame's painted mask (white), such as 0=mask0.png; give several for a better one."""
    mask: plain(str, "PATH") = ""
    """A mask for all frames: a video, alpha, palette PNGs, npy, npz or COCO's JSON, to be refined."""
    object: tyro.conf.UseAppendAction[plain(tuple[int, ...], "N")] = ()
    """Which of a mask's numbered objects; give several to join them."""
    refine: group(MaskRefinements) = field(default_factory=MaskRefinements)
    fps: float = 16
    """Frame rate of a folder of frames."""
    device: str = "auto"
    """Where SAM 2 and the finder run: auto, cpu, cuda, ..."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace files that exist."""

    def run(self) -> None:
        """Make and write; say what wants another look."""
        check_folder(Path(self.out), self.overwrite)
        job = mask_job(
            self.clip,
            self.marks,
            self.frame,
            mask=self.mask,
            objects=self.object,
            refinements=asdict(self.refine),
            device=self.device,
            fps=self.fps,
        )
        write_files(job, Path(self.out), self.overwrite)


def write_files(job: "MaskJob", out: Path, overwrite: bool) -> None:
    """Make a job's mask, write all of its files or none, and print what is to be said of it."""
    from kvlock.editing.destination import KEPT
    from kvlock.masks.job import make_mask
    from kvlock.masks.outputs import write_mask
    from kvlock.work.claim import claimed, publish

    with claimed(out, KEPT) as work:
        made = make_mask(job)
        folder = work / "made"
        folder.mkdir()
        notes = [*made.notes, *write_mask(made, folder)]
        publish(folder, out, overwrite)
    for note in notes:
        print(note)
    print(f"written: {out}")


def mask_job(
    clip: str,
    marks: MarkOptions,
    frames: tuple[str, ...],
    mask: str = "",
    objects: tuple[int, ...] = (),
    refinements: Mapping[str, Any] | None = None,
    device: str = "auto",
    fps: float = 16,
) -> "MaskJob":
    """The flags as a job. Raises ValueError for one that cannot be read."""
    from kvlock.masks.job import MaskJob
    from kvlock.masks.morphology import Refinements

    return MaskJob(
        clip,
        dict(_frame_of(text) for text in frames),
        {t: (x, y, w, h) for t, (x, y, w, h) in (_numbers_at("box", b, 4) for b in marks.box)},
        _points("point", marks.point),
        _points("not-point", marks.not_point),
        marks.text,
        mask,
        objects,
        Refinements(**(refinements or {})),
        marks.track,
        marks.sam2,
        marks.finder,
        device,
        fps,
    )


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise ValueError where a folder of files could not be written to."""
    if out.suffix.lower() in (".mp4", ".png", ".mov"):
        raise ValueError(f"--out is {out}; expected a folder")
    if not out.absolute().parent.is_dir():
        parent = out.absolute().parent
        raise ValueError(f"--out {out}: the folder {parent} does not exist; make it first")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out {out} is not empty; give another folder or --overwrite")


def _points(flag: str, texts: tuple[str, ...]) -> dict[int, tuple[tuple[int, int], ...]]:
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for text in texts:
        frame, (x, y) = _numbers_at(flag, text, 2)
        found[frame] = (*found.get(frame, ()), (x, y))
    return found


def _numbers_at(flag: str, text: str, count: int) -> tuple[int, list[int]]:
    """`1,2@3` as (3, [1, 2])."""
    numbers, _, frame = text.partition("@")
    words = [word.strip() for word in numbers.split(",")]
    if len(words) != count or not all(w.isdecimal() for w in (*words, frame or "0")):
        form = {2: "X,Y@FRAME such as 120,80@0", 4: "X,Y,W,H@FRAME such as 40,30,200,160@0"}[count]
        raise ValueError(f"--{flag} is {text!r}; expected {form}")
    return int(frame or 0), [int(word) for word in words]


def _frame_of(text: str) -> tuple[int, str]:
    frame, equals, path = text.partition("=")
    if not (equals and frame.isdecimal() and path):
        raise ValueError(f"--frame is {text!r}; expected FRAME=PATH such as 0=mask0.png")
    return int(frame), path
