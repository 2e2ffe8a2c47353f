"""SAM 2 on random weights of the real class: prompts as transformers' own processor makes them."""

import sys

import numpy as np
import pytest
import torch
from transformers import Sam2VideoProcessor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from kvlock.cli import main
from kvlock.masks.sam2 import _prompt, load_sam2, track
from kvlock.media.video import read_video, write_video
from kvlock.shapes.scenes import scene_timing
from support import finders
from support.networks import random_clip

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def model():
    return finders.sam2()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(folder)
    return folder


def square() -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[10:30, 12:40] = True
    return mask


def test_every_frame_gets_a_mask_and_painted_ones_keep_theirs(model):
    video = random_clip(4, HEIGHT, WIDTH)
    carried = track(model, video, {1: square()}, {}, {}, {})
    assert carried.masks.shape == (4, HEIGHT, WIDTH) and carried.masks.dtype == torch.bool
    assert torch.equal(carried.masks[1], square()) and carried.confidence[1] == 1
    assert ((carried.confidence >= 0) & (carried.confidence <= 1)).all()
    assert all(carried.masks[t].any() for t in (0, 2, 3))


def test_what_is_painted_or_clicked_reaches_the_other_frames(model):
    video = random_clip(3, HEIGHT, WIDTH)
    prompts = (
        ({0: square()}, {}, {}, {}),
        ({0: ~square()}, {}, {}, {}),
        ({}, {0: (4, 4, 20, 20)}, {}, {}),
        ({}, {0: (4, 4, 20, 20)}, {0: ((8, 8),)}, {0: ((50, 40),)}),
        ({}, {0: (4, 4, 20, 20)}, {2: ((8, 8),)}, {}),
    )
    found = [track(model, video, *p).masks for p in prompts]
    for i, one in enumerate(found):
        assert not any(torch.equal(one[1], other[1]) for other in found[:i])
    assert torch.equal(track(model, video, *prompts[3]).masks, found[3])


def test_prompts_are_what_the_processor_makes_of_them():
    processor = Sam2VideoProcessor.__new__(Sam2VideoProcessor)  # its parts need torchvision
    processor.target_size, processor.point_pad_value = finders.SIDE, -10
    session = Sam2VideoInferenceSession(video_height=HEIGHT, video_width=WIDTH)
    processor.process_new_points_or_boxes_for_video_frame(
        session,
        0,
        [1],
        input_points=[[[[5, 6], [50, 40]]]],
        input_labels=[[[1, 0]]],
        input_boxes=[[[4, 3, 24, 33]]],
    )
    expected = session.point_inputs_per_obj[0][0]
    made = _prompt(
        (4, 3, 20, 30), ((5, 6),), ((50, 40),), (HEIGHT, WIDTH), (finders.SIDE, finders.SIDE)
    )
    assert torch.allclose(made["point_coords"], expected["point_coords"])
    assert torch.equal(made["point_labels"].long(), expected["point_labels"].long())


def test_a_clip_on_the_command_line(weights, tmp_path):
    video = random_clip(3, HEIGHT, WIDTH)
    write_video(tmp_path / "clip.mp4", video, scene_timing(video), lossless=True)
    words = ["mask", f"{tmp_path}/clip.mp4", "--box", "4,4,20,20@1", "--track", "sam2"]
    assert main([*words, "--sam2", str(weights), "--out", f"{tmp_path}/out"]) == 0
    written = read_video(tmp_path / "out/mask.mp4", 9).frames[..., 0] > 127
    expected = track(load_sam2(str(weights), "cpu"), video, {}, {1: (4, 4, 20, 20)}, {}, {})
    assert np.array_equal(written.numpy(), expected.masks.numpy())
    assert "kernels" not in sys.modules  # fetches code where it runs


@pytest.mark.parametrize(
    "flags, why",
    [
        ([], "--sam2 is missing: it names weights that you have, such as from hf download"),
        (
            ["--sam2", "nowhere/at-all"],
            "--sam2 nowhere/at-all: there is no model; expected a folder",
        ),
    ],
)
def test_weights_that_are_not_there_are_one_sentence(tmp_path, capsys, flags, why):
    video = random_clip(2, HEIGHT, WIDTH)
    write_video(tmp_path / "clip.mp4", video, scene_timing(video))
    words = ["mask", f"{tmp_path}/clip.mp4", "--point", "9,9", "--track", "sam2", *flags]
    assert main([*words, "--out", f"{tmp_path}/out"]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1


def test_weights_of_another_model_are_refused(tmp_path):
    folder = finders.finder("clipseg", tmp_path / "clipseg")
    with pytest.raises(ValueError, match="is of the kind clipseg; expected sam2_video"):
        load_sam2(str(folder), "cpu")
