"""What fails after the last step is not lost: `kvlock finish` writes the same bytes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kvlock.editing.outputs
import kvlock.editing.room
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.cli import main
from kvlock.shapes.scenes import write_scene
from kvlock.work.claim import working_folder
from support import tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clip, its mask, a tiny model, and edits of it that went well, by their name."""
    root = tmp_path_factory.mktemp("world")
    write_scene(0, root)
    tiny.vace_pipe().save_pretrained(root / "model")
    for name, flags in FLAGS.items():
        assert main(words(root, root / name, *flags)) == 0
    return root


FLAGS = {"one": (), "two": ("--seeds", "0..1", "--method", "flowedit"), "alone.mp4": ()}


def words(root, out, *flags):
    inputs = [str(root / "source.mp4"), "--mask", str(root / "mask.mp4"), "--steps", "2"]
    model = ["--model", str(root / "model"), "--prompt", "a red cat"]
    return ["edit", *inputs, *model, "--out", str(out), *flags]


def files(out):
    """Names and bytes, without what names the folder."""
    found = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
    return {str(p.relative_to(out)): p.read_bytes() for p in found if p.name != "run.json"}


def broken(*arguments):
    raise OSError(28, "No space left on device")


def out_of_memory(*arguments):
    raise RuntimeError("CUDA out of memory")


def interrupted(*arguments):
    raise KeyboardInterrupt


FAULTS = [
    (WanVACEBackbone, "decode_video", out_of_memory, 4),
    (kvlock.editing.outputs, "write_video", broken, 2),
    (kvlock.editing.outputs, "publish", broken, 2),
    (kvlock.editing.outputs, "write_json", broken, 2),
    (kvlock.editing.outputs, "write_video", interrupted, 130),
]


@pytest.mark.parametrize("name, fault", [("one", f) for f in FAULTS] + [("two", FAULTS[1])])
def test_an_edit_that_failed_is_finished_to_the_byte(
    world, tmp_path, monkeypatch, capsys, name, fault
):
    target, attribute, fail, code = fault
    out = tmp_path / name
    monkeypatch.setattr(target, attribute, fail)
    assert main(words(world, out, *FLAGS[name])) == code
    said = capsys.readouterr().err
    assert f"the edit is kept; to write it, type kvlock finish {out}" in said
    assert fail is not broken or "MB are needed there, and" in said
    assert [p.name for p in tmp_path.iterdir()] == [working_folder(out).name]
    assert main(["finish", str(out)]) == code  # it can fail again
    monkeypatch.undo()
    again = "kvlock.editing.edit.denoise_fitted"
    monkeypatch.setattr(again, lambda *a: pytest.fail("denoised once more"))
    assert main(["finish", str(out)]) == 0
    assert files(out) == files(world / name)
    again, whole = (json.loads((o / "run.json").read_text()) for o in (out, world / name))
    assert again == whole and [p.name for p in tmp_path.iterdir()] == [name]
    assert main(["finish", str(out)]) == 2
    assert "there is no edit to finish" in capsys.readouterr().err


def test_one_file_is_finished_too(world, tmp_path, monkeypatch):
    out = tmp_path / "alone.mp4"
    monkeypatch.setattr(kvlock.editing.outputs, "write_video", broken)
    assert main(words(world, out)) == 2
    monkeypatch.undo()
    assert main(["finish", str(out)]) == 0
    assert files(out) == files(world / "alone.mp4") and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_another_filled_meanwhile_is_kept(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    write = kvlock.editing.outputs.write_video

    def meanwhile(*arguments):
        out.mkdir(exist_ok=True)
        (out / "edited.mp4").write_text("another's")
        write(*arguments)

    monkeypatch.setattr(kvlock.editing.outputs, "write_video", meanwhile)
    assert main(words(world, out)) == 2
    assert "edited.mp4 is in the way" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["finish", str(out)]) == 2
    assert (out / "edited.mp4").read_text() == "another's"
    assert main(["finish", str(out), "--overwrite"]) == 0
    assert files(out) == files(world / "one") and os.listdir(tmp_path) == ["out"]


def test_a_clip_that_changed_is_refused(world, tmp_path, monkeypatch, capsys):
    for name in ("source.mp4", "mask.mp4"):
        shutil.copy(world / name, tmp_path)
    (tmp_path / "model").symlink_to(world / "model")
    monkeypatch.setattr(kvlock.editing.outputs, "write_video", broken)
    assert main(words(tmp_path, tmp_path / "out")) == 2
    monkeypatch.undo()
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(tmp_path / "white.png")
    os.replace(tmp_path / "white.png", tmp_path / "mask.mp4")
    assert main(["finish", str(tmp_path / "out")]) == 2
    assert "mask changed since" in capsys.readouterr().err


def test_latents_that_are_damaged_are_named(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(kvlock.editing.outputs, "write_video", broken)
    assert main(words(world, out)) == 2
    monkeypatch.undo()
    (latents,) = working_folder(out).rglob("latents.safetensors")
    latents.write_bytes(latents.read_bytes()[:-100])
    assert main(["finish", str(out)]) == 2
    assert "latents.safetensors cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--lossless",)])
def test_a_disk_without_room_is_refused_before_the_edit(
    world, tmp_path, monkeypatch, capsys, flags
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        kvlock.editing.room.shutil, "disk_usage", lambda path: usage._replace(free=10_000)
    )
    monkeypatch.setattr("kvlock.editing.edit.load_backbone", lambda *a, **k: pytest.fail("loaded"))
    assert main(words(world, tmp_path / "out", *flags)) == 2
    said = capsys.readouterr().err
    assert "MB are needed there, and 0.0 MB are free; make room, or give another disk" in said
    assert list(tmp_path.iterdir()) == []


def test_a_second_edit_to_the_same_out_is_refused_before_it_begins(world, tmp_path, monkeypatch):
    """While one is between its steps and its files, another process asks for the same folder."""
    out, answers = tmp_path / "out", []
    decode = WanVACEBackbone.decode_video

    def ask(self, latents):
        command = [sys.executable, "-m", "kvlock.cli", *words(world, out)]
        answers.append(answers or subprocess.run(command, capture_output=True, text=True))
        return decode(self, latents)

    monkeypatch.setattr(WanVACEBackbone, "decode_video", ask)
    assert main(words(world, out)) == 0
    second = answers[0]
    assert second.returncode == 2 and "written" not in second.stdout
    assert f"{out} is being written by process {os.getpid()} on" in second.stderr
    assert files(out) == files(world / "one")
