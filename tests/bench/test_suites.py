"""Manifests, the built-in suites, and what is edited of an item."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kvlock.backbones.families import WAN_NEGATIVE_PROMPT
from kvlock.backbones.loading import backbone_of
from kvlock.bench.subjects import edit_subjects, load_subject
from kvlock.bench.suite import HELD_OUT, VALIDATION, Item, Suite, read_suite, shapes_suite
from kvlock.editing.clips import default_config
from kvlock.shapes.scenes import SEED_STRIDE
from support import tiny


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 1"),
        ('{"id": "a/b", "prompt": "x", "scene": 1}', "id 'a/b'"),
        ('{"id": "a", "prompt": "x"}', "neither a scene nor"),
        ('{"id": "a", "prompt": " ", "scene": 1}', "no prompt"),
        ('{"id": "a", "prompt": "x", "scene": -1}', "expected a seed"),
        ('{"id": "a", "prompt": "x", "scene": 1, "color": 2}', "field 'color' is unknown"),
        (
            '{"id": "a", "prompt": "x", "scene": 1}\n{"id": "a", "prompt": "y", "scene": 2}',
            "stands there twice",
        ),
        ("", "is empty"),
        ("[1]", "line 1"),
        ('{"id": ".a", "prompt": "x", "scene": 1}', "a letter, digit or _ first"),
        (
            '{"id": "a", "prompt": "x", "scene": 1.5}',
            "scene is 1.5; expected a whole number or null",
        ),
        (
            '{"id": "a", "prompt": "x", "scene": 1, "source_prompt": null}',
            "source_prompt is None; expected text",
        ),
        (
            '{"id": "a", "prompt": "x", "scene": 1, "invert_mask": "false"}',
            "invert_mask is 'false'; expected true or false",
        ),
        ('{"id": "a", "prompt": "x", "scene": 1, "fps": 0}', "fps is 0"),
    ],
)
def test_bad_manifests_are_named(line, message, tmp_path):
    path = tmp_path / "suite.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        read_suite(str(path))


def test_the_suites_of_the_built_in_world():
    held_out, validation = read_suite("shapes"), read_suite("shapes-validation")
    assert [i.scene for i in held_out.items] == list(HELD_OUT) and len(held_out.items) == 64
    assert [i.scene for i in validation.items] == list(VALIDATION) and not set(HELD_OUT) & set(
        VALIDATION
    )
    assert {i.edit_type for i in held_out.items} == {
        "recolour",
        "reshape",
        "replace",
        "remove",
        "add",
    }


def test_a_manifest_may_give_a_scene_other_prompts():
    item = Item("odd", "a green cross", "a dog", "blurry", scene=3)
    request = load_subject(replace(shapes_suite("s", range(0)), items=(item,)), item, 2).request
    assert (request.prompt, request.source_prompt, request.negative_prompt) == (
        "a green cross",
        "a dog",
        "blurry",
    )
    assert request.seed == 3 + 2 * SEED_STRIDE


def test_an_item_without_a_negative_prompt_gets_that_of_the_models_family():
    backbone = backbone_of(tiny.vace_pipe())
    config = default_config("shapes", "plain", num_inference_steps=1)
    edited = []
    for negative in (None, WAN_NEGATIVE_PROMPT, ""):
        item = Item("odd", "a red cat", negative_prompt=negative, scene=3)
        subject = load_subject(Suite("s", Path(), (item,)), item, 0)
        [result] = edit_subjects(backbone, "wan2.1-vace-1.3b", config, [subject])
        edited.append(result.video)
    assert torch.equal(edited[0], edited[1]) and not torch.equal(edited[0], edited[2])
