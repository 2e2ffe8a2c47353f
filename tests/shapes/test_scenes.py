"""Scenes as requests, clips and files."""

import json

import pytest
import torch
from PIL import Image

from kvlock.shapes.scene import random_edit
from kvlock.shapes.scenes import render_scenes, scene_clips, scene_request, scene_timing


def test_a_request_is_the_scenes_edit_with_its_own_noise_unless_another_is_given():
    request, clips, edit = scene_request(3), scene_clips(3), random_edit(3)
    assert (request.prompt, request.source_prompt) == (edit.prompt, edit.source_prompt)
    assert request.seed == 3 and scene_request(3, noise=8).seed == 8
    assert torch.equal(request.video, clips["source"])
    assert torch.equal(
        clips["mask"], (request.mask[..., None] * torch.tensor(255)).expand(9, 96, 96, 3)
    )
    outside = ~request.mask
    assert torch.equal(clips["source"][outside], clips["truth"][outside])
    assert not torch.equal(clips["source"][request.mask], clips["truth"][request.mask])


def test_a_scene_plays_at_eight_frames_a_second():
    clip = scene_timing(scene_clips(0)["source"])
    assert clip.rate == 8 and [float(t * clip.time_base) for t in clip.times[:3]] == [
        0,
        1 / 8,
        2 / 8,
    ]
    assert not clip.is_file


def test_render_writes_clips_sheet_and_json(tmp_path):
    render_scenes(range(2), tmp_path)
    files = {f.name for f in (tmp_path / "00001").iterdir()}
    assert files == {"source.mp4", "mask.mp4", "truth.mp4"}
    records = json.loads((tmp_path / "scenes.json").read_text())
    assert [r["seed"] for r in records] == [0, 1] and records[1]["prompt"] == random_edit(1).prompt
    assert Image.open(tmp_path / "sheet.png").width > 500
    with pytest.raises(ValueError, match="no scene to render; expected --num 1"):
        render_scenes(range(0), tmp_path)
