"""Public benchmarks, as their archives lie on disk, to manifests."""

import json

import numpy as np
import pytest
from PIL import Image

from kvlock.bench.suite import read_suite
from kvlock.cli import main
from kvlock.shapes.scenes import write_scene


def _jpegs(folder, count, value):
    folder.mkdir(parents=True)
    for i in range(count):
        image = np.full((24, 32, 3), value, np.uint8)
        image[8:16, 8:24] = 255
        Image.fromarray(image).save(folder / f"{i + 1:05d}.jpg")


def _converted(kind, root, tmp_path, *flags):
    assert (
        main(["bench", "convert", kind, str(root), "--out", str(tmp_path / "suite.jsonl"), *flags])
        == 0
    )
    suite = read_suite(str(tmp_path / "suite.jsonl"))
    for item in suite.items:
        assert (suite.folder / item.video).exists() and (suite.folder / item.mask).exists()
    return suite


def test_five_bench(tmp_path, model):
    data = tmp_path / "FiVE" / "data"
    for name in ("bear", "swan"):
        _jpegs(data / "images" / name, 5, 90)
        _jpegs(data / "bmasks" / name, 5, 0)
    (data / "edit_prompt").mkdir()
    entry = dict(
        video_name="bear", editing_type_id=1, save_dir="x", source_prompt="A [bear] walks."
    )
    entry |= dict(target_prompt="A [lion] walks.", multiple_choice_question="?")
    (data / "edit_prompt" / "edit1_FiVE.json").write_text(
        json.dumps([entry, entry | {"video_name": "swan"}])
    )
    (data / "edit_prompt" / "edit6_FiVE.json").write_text(json.dumps([entry]))
    suite = _converted("five", tmp_path / "FiVE", tmp_path)
    assert [i.id for i in suite.items] == ["bear-1-000", "swan-1-001", "bear-6-000"]
    assert (suite.items[0].prompt, suite.items[0].source_prompt) == (
        "A lion walks.",
        "A bear walks.",
    )
    assert [i.edit_type for i in suite.items] == ["replace-rigid", "replace-rigid", "remove"]
    words = [
        "--methods",
        "plain",
        "--steps",
        "1",
        "--limit",
        "1",
        "--model",
        model,
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["bench", "run", str(tmp_path / "suite.jsonl"), *words]) == 0


def test_vace_benchmark(tmp_path, capsys):
    root = tmp_path / "VACE-Benchmark"
    for task in ("inpainting", "outpainting", "depth"):
        folder = root / "assets" / "examples" / task
        write_scene(0, folder)
        (folder / "source.mp4").rename(folder / "src_video.mp4")
        (folder / "mask.mp4").rename(folder / ("src_mask.mp4" if task != "depth" else "other.mp4"))
        (folder / "truth.mp4").rename(
            folder / ("ori_video.mp4" if task == "inpainting" else "unused.mp4")
        )
    prompts = tmp_path / "prompts.json"
    prompts.write_text(
        json.dumps(
            {"inpainting": "a cat", "outpainting": {"prompt": "a dog", "source_prompt": "x"}}
        )
    )
    suite = _converted("vace", root, tmp_path, "--prompts", str(prompts))
    assert [(i.id, i.prompt, i.source_prompt) for i in suite.items] == [
        ("inpainting", "a cat", ""),
        ("outpainting", "a dog", "x"),
    ]
    assert [i.video.split("/")[-1] for i in suite.items] == ["ori_video.mp4", "src_video.mp4"]
    assert main(["bench", "convert", "vace", str(root), "--out", str(tmp_path / "s.jsonl")]) == 2
    assert (
        "no prompt for inpainting" in capsys.readouterr().err
        and not (tmp_path / "s.jsonl").exists()
    )


def test_davis(tmp_path, capsys):
    root = tmp_path / "DAVIS"
    for name in ("bear", "camel"):
        _jpegs(root / "JPEGImages" / "480p" / name, 5, 90)
        folder = root / "Annotations" / "480p" / name
        folder.mkdir(parents=True)
        for i in range(5):
            index = np.zeros((24, 32), np.uint8)
            index[4:12, 4:12] = 2
            image = Image.fromarray(index, "P")
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            image.save(folder / f"{i:05d}.png")
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"camel": "a horse"}))
    suite = _converted("davis", root, tmp_path, "--prompts", str(prompts))
    assert [(i.id, i.prompt, i.fps) for i in suite.items] == [("camel", "a horse", 24)]
    prompts.write_text(json.dumps({"camle": "a horse"}))
    words = [
        "bench",
        "convert",
        "davis",
        str(root),
        "--out",
        str(tmp_path / "s.jsonl"),
        "--prompts",
        str(prompts),
    ]
    assert main(words) == 2 and "--prompts names camle" in capsys.readouterr().err


def test_a_plain_folder(tmp_path, capsys):
    root = tmp_path / "mine"
    write_scene(0, root / "one")
    (root / "one" / "source.mp4").rename(root / "one" / "video.mp4")
    (root / "one" / "prompt.txt").write_text("a blue star\n")
    _jpegs(root / "two" / "video", 5, 90)
    Image.fromarray(np.eye(24, 32, dtype=np.uint8) * 255).save(root / "two" / "mask.png")
    (root / "two" / "prompt.txt").write_text("a cat")
    (root / "two" / "source_prompt.txt").write_text("a dog")
    suite = _converted("folder", root, tmp_path)
    assert [(i.id, i.prompt, i.source_prompt, bool(i.truth)) for i in suite.items] == [
        ("one", "a blue star", "", True),
        ("two", "a cat", "a dog", False),
    ]
    for change, message in [
        ("prompt.txt", "has no prompt.txt"),
        ("mask.png", "has no mask; expected"),
    ]:
        kept = (root / "two" / change).read_bytes()
        (root / "two" / change).unlink()
        assert (
            main(["bench", "convert", "folder", str(root), "--out", str(tmp_path / "s.jsonl")]) == 2
        )
        assert message in capsys.readouterr().err
        (root / "two" / change).write_bytes(kept)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("five", "has no folder data"),
        ("vace", "has no folder assets"),
        ("davis", "no folder Ann"),
        ("magic", "unknown"),
    ],
)
def test_another_layout_is_named(kind, message, tmp_path, capsys):
    assert main(["bench", "convert", kind, str(tmp_path), "--out", str(tmp_path / "s.jsonl")]) == 2
    assert message in capsys.readouterr().err
