"""Finders on random weights of the real classes, against transformers' own post-processing."""

import pytest
import torch

import kvlock.masks.text
from kvlock.cli import main
from kvlock.masks.text import KINDS, _inside, find, found_in, load_finder
from kvlock.media.video import write_video
from kvlock.shapes.scenes import scene_timing
from support import finders
from support.networks import random_clip

HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("finders")
    return {kind: finders.finder(kind, root / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", ["grounding-dino", "owlv2"])
def test_boxes_are_those_of_transformers(folders, kind):
    finder = load_finder(str(folders[kind]), "cpu")
    frame = random_clip(1, HEIGHT, WIDTH)[0]
    score, box = found_in(finder, frame, "A red circle")
    words = "a red circle." if kind == "grounding-dino" else "A red circle"
    pictures = finder.images(images=[frame.numpy()], return_tensors="pt")
    with torch.no_grad():
        output = finder.model(**finder.tokenizer([words], return_tensors="pt"), **pictures)
    expected = finder.images.post_process_object_detection(
        output, threshold=0.0, target_sizes=torch.tensor([[HEIGHT, WIDTH]])
    )[0]
    best = output.logits[0].sigmoid().amax(-1).argmax()
    assert score == pytest.approx(float(output.logits[0].sigmoid().max()), abs=1e-5)
    assert box == _inside(tuple(expected["boxes"][best].tolist()), (HEIGHT, WIDTH))


def test_a_segmentation_becomes_the_box_of_what_is_half_as_sure():
    logits = torch.full((60, 80), -4.0)
    logits[20:30, 40:60], logits[22, 10] = 4.0, -3.0
    score, box = kvlock.masks.text._marked(logits, (HEIGHT, WIDTH))
    assert box == (40, 20, 20, 10) and score == pytest.approx(0.982, abs=1e-3)
    larger = kvlock.masks.text._marked(logits, (120, 160))[1]
    assert all(abs(a - 2 * b) <= 2 for a, b in zip(larger, box))


@pytest.mark.parametrize("kind", KINDS)
def test_the_surest_of_five_frames_counts(folders, kind):
    video = random_clip(9, HEIGHT, WIDTH)
    number, box = find(video, "a circle", str(folders[kind]), "cpu")
    finder = load_finder(str(folders[kind]), "cpu")
    scores = {t: found_in(finder, video[t], "a circle") for t in (0, 2, 4, 6, 8)}
    assert scores[number][0] == max(score for score, _ in scores.values())
    assert box == scores[number][1]


def test_boxes_stay_inside_and_hold_a_pixel():
    assert _inside((-5.0, 2.4, 90.0, 70.0), (HEIGHT, WIDTH)) == (0, 2, 80, 58)
    assert _inside((95.0, 70.0, 99.0, 80.0), (HEIGHT, WIDTH)) == (79, 59, 1, 1)


def test_nothing_found_is_a_sentence(folders, monkeypatch):
    monkeypatch.setitem(KINDS, "owlv2", KINDS["owlv2"]._replace(least=1.1))
    with pytest.raises(ValueError, match="--text 'a circle': nothing like it was found"):
        find(random_clip(1, HEIGHT, WIDTH), "a circle", str(folders["owlv2"]), "cpu")


def test_words_on_the_command_line(folders, tmp_path):
    video = random_clip(3, HEIGHT, WIDTH)
    write_video(tmp_path / "clip.mp4", video, scene_timing(video), lossless=True)
    words = ["mask", f"{tmp_path}/clip.mp4", "--text", "a red circle", "--out", f"{tmp_path}/out"]
    assert main([*words, "--finder", str(folders["clipseg"])]) == 0
    assert (tmp_path / "out/mask.mp4").is_file()


@pytest.mark.parametrize(
    "path, why",
    [
        ("", "--finder is missing: it names weights that you have, such as from hf download"),
        ("nowhere/at-all", "--finder nowhere/at-all: there is no model; expected a folder"),
    ],
)
def test_weights_that_are_not_there_are_one_sentence(tmp_path, capsys, path, why):
    video = random_clip(2, HEIGHT, WIDTH)
    write_video(tmp_path / "clip.mp4", video, scene_timing(video))
    words = ["mask", f"{tmp_path}/clip.mp4", "--text", "a cat", "--out", f"{tmp_path}/out"]
    assert main([*words, *(["--finder", path] if path else [])]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1


def test_another_kind_of_network_and_half_a_folder_are_refused(tmp_path):
    finders.sam2().save_pretrained(tmp_path / "sam2")
    with pytest.raises(ValueError, match="is of the kind sam2_video; expected grounding-dino or"):
        load_finder(str(tmp_path / "sam2"), "cpu")
    folder = finders.finder("owlv2", tmp_path / "owl")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="preprocessor_config.json or the tokenizer is missing"):
        load_finder(str(folder), "cpu")
