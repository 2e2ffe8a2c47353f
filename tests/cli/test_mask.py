"""`kvlock mask`, and marks given to `kvlock edit`, as a user meets them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.cli import main
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video, write_video
from kvlock.shapes.scenes import scene_timing
from support import tiny
from support.scenes import iou, scene

FILES = {"mask.mp4", "overlay.mp4", "sheet.png", "mask.json", "mask.png"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clip, a painted frame of it, and its true mask."""
    root = tmp_path_factory.mktemp("world")
    video, truth = scene(10000)
    write_video(root / "clip.mp4", video, scene_timing(video), lossless=True)
    for t in (0, 8):
        Image.fromarray(truth[t].numpy()).save(root / f"mask{t}.png")
    return root, truth


def box_words(truth: torch.Tensor, frame: int) -> str:
    ys, xs = np.nonzero(truth[frame].numpy())
    left, top = xs.min() - 2, ys.min() - 2
    return f"{left},{top},{xs.max() + 2 - left},{ys.max() + 2 - top}@{frame}"


def made(out) -> torch.Tensor:
    frames = read_video(out / "mask.mp4", 99).frames
    assert set(frames.unique().tolist()) <= {0, 255}  # lossless
    return frames[..., 0] > 127


def test_a_painted_frame_becomes_a_clip_of_masks(world, tmp_path, capsys):
    root, truth = world
    out = tmp_path / "out"
    assert main(["mask", f"{root}/clip.mp4", "--frame", f"0={root}/mask0.png", f"--out={out}"]) == 0
    assert {f.name for f in out.iterdir()} == FILES
    found = made(out)
    assert torch.equal(found[0], truth[0]) and min(map(iou, found, truth)) > 0.75
    record = json.loads((out / "mask.json").read_text())
    assert record["keyed"] == [0] and record["look_again"] == []
    assert [r["frame"] for r in record["frames"]] == list(range(9))
    assert record["frames"][0]["confidence"] == 1
    area = float(truth[0].float().mean())
    assert record["frames"][0]["area"] == pytest.approx(area, abs=1e-6)
    assert "mask: 9 frames" in capsys.readouterr().out
    clip = read_video(out / "overlay.mp4", 99)
    assert clip.frames.shape == (9, 96, 96, 3) and clip.rate == 8


@pytest.mark.parametrize("frame", [0, 4])
def test_a_box_and_a_point_become_a_clip_of_masks(world, tmp_path, frame):
    root, truth = world
    ys, xs = np.nonzero(truth[frame].numpy())
    point = f"{int(xs.mean())},{int(ys.mean())}@{frame}"
    for number, flags in enumerate((["--box", box_words(truth, frame)], ["--point", point])):
        out = tmp_path / f"out{number}"
        assert main(["mask", f"{root}/clip.mp4", *flags, "--out", str(out)]) == 0
        assert np.mean([iou(a, b) for a, b in zip(made(out), truth)]) > 0.75
        assert json.loads((out / "mask.json").read_text())["keyed"] == [frame]


def test_a_file_is_refined(world, tmp_path):
    root, truth = world
    numbers = np.where(truth.numpy(), 2, 0).astype(np.uint8)
    np.savez(tmp_path / "labels.npz", mask=numbers)
    flags = ["--mask", str(tmp_path / "labels.npz"), "--object", "2", "--box-mask", "--grow", "3"]
    out = tmp_path / "out"
    assert main(["mask", f"{root}/clip.mp4", *flags, "--out", str(out)]) == 0
    found = made(out)
    for marked, true in zip(found, truth):
        ys, xs = np.nonzero(true.numpy())
        box = np.zeros((96, 96), bool)
        grown = slice(max(0, ys.min() - 3), ys.max() + 4), slice(max(0, xs.min() - 3), xs.max() + 4)
        box[grown] = True
        assert np.array_equal(marked.numpy(), box)


def test_a_feather_makes_a_soft_copy(world, tmp_path):
    root, truth = world
    np.save(tmp_path / "m.npy", truth.numpy())
    out = tmp_path / "out"
    flags = ["--mask", str(tmp_path / "m.npy"), "--feather", "3"]
    assert main(["mask", f"{root}/clip.mp4", *flags, "--out", str(out)]) == 0
    assert torch.equal(read_mask(out / "mask.mp4", 9, 96, 96).mask, truth)
    soft = read_video(out / "soft.mp4", 99).frames[..., 0]
    assert torch.equal(soft > 127, truth) and len(soft.unique()) > 5


def test_frames_that_want_another_look_are_named(world, tmp_path, capsys):
    video, truth = scene(10000, 13)
    video = video.clone()
    video[5:8] = 30
    write_video(tmp_path / "clip.mp4", video, scene_timing(video), lossless=True)
    Image.fromarray(truth[0].numpy()).save(tmp_path / "m.png")
    words = ["mask", f"{tmp_path}/clip.mp4", "--frame", f"0={tmp_path}/m.png", "--out"]
    assert main([*words, f"{tmp_path}/out"]) == 0
    assert "look at frames 5 to 12: the mask may be wrong there" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/mask.json").read_text())["look_again"] == list(range(5, 13))


@pytest.mark.parametrize(
    "flags, why",
    [
        ([], "nothing says what to mask; give --frame 0=painted.png"),
        (["--box", "1,2,3@0"], "--box is '1,2,3@0'; expected X,Y,W,H@FRAME such as"),
        (["--point", "a,2"], "--point is 'a,2'; expected X,Y@FRAME such as"),
        (["--point", "1,2@-1"], "--point is '1,2@-1'"),
        (["--point", "1,2@9"], "frame 9 is not in the clip; expected 0 to 8"),
        (["--not-point", "1,2"], "no point on the thing"),
        (["--frame", "mask.png"], "--frame is 'mask.png'; expected FRAME=PATH such as"),
        (["--frame", "0=nowhere.png"], "nowhere.png: no such mask file"),
        (["--mask", "m.mp4", "--point", "1,2"], "--mask m.mp4 is a mask for all frames already"),
        (["--frame", "0=a.png", "--point", "1,2"], "frame 0 is painted and has a box or points"),
        (["--box", "1,2,300,4"], "box 1,2,300,4 is empty or not inside the clip of 96x96"),
        (["--point", "40,40", "--grow", "-2"], "--grow is -2; expected 0 or more"),
        (["--point", "40,40", "--shrink", "90"], "nothing is left of the mask"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(world, tmp_path, capsys, flags, why):
    root, _ = world
    assert main(["mask", f"{root}/clip.mp4", "--out", f"{tmp_path}/out", *flags]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_not_written_to(world, tmp_path, capsys):
    root, _ = world
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    words = ["mask", f"{root}/clip.mp4", "--frame", f"0={root}/mask0.png", f"--out={tmp_path}/out"]
    assert main(words) == 2 and "is not empty" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert {f.name for f in (tmp_path / "out").iterdir()} == FILES | {"mine.txt"}


@pytest.mark.parametrize("name", ["edit", "edit.mp4"])
def test_an_edit_takes_marks_instead_of_a_mask(world, tmp_path, name):
    root, truth = world
    tiny.vace_pipe().save_pretrained(tmp_path / "model")
    words = ["edit", f"{root}/clip.mp4", "--prompt", "a red cat", "--steps", "2"]
    words += ["--model", f"{tmp_path}/model", "--out", f"{tmp_path}/{name}", "--lossless"]
    marks = ["--frame-mask", f"0={root}/mask0.png", "--box", box_words(truth, 8)]
    assert main([*words, *marks]) == 0
    masks = made(tmp_path / "edit-mask")
    assert torch.equal(masks[0], truth[0]) and min(map(iou, masks, truth)) > 0.6
    if name == "edit":
        record = json.loads((tmp_path / "edit/run.json").read_text())
        assert record["job"]["mask"] == str(tmp_path / "edit-mask/mask.mp4")
        assert main(["edit", "--from", f"{tmp_path}/edit/run.json", "--out", f"{tmp_path}/b"]) == 0
        same = [(tmp_path / d / "edited.mp4").read_bytes() for d in ("edit", "b")]
        assert same[0] == same[1]


def test_an_edit_takes_marks_or_a_mask(world, tmp_path, capsys):
    root, _ = world
    words = ["edit", f"{root}/clip.mp4", "--prompt", "a", "--model", "shapes", "--out"]
    words += [f"{tmp_path}/out", "--mask", f"{root}/mask0.png", "--point", "40,40"]
    assert main(words) == 2 and "--mask is a mask for all frames" in capsys.readouterr().err
