"""What an edit is made from: requests that suit, noise, sources that are shared, prompts."""

import dataclasses

import pytest
import torch

from kvlock.contract.types import Prompt, pick
from kvlock.core.clips import prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import FlowEditConfig
from support.draws import randn
from support.edits import config, latents_of, make_backbone, make_request, wide_request

BAD = {
    "an empty mask": (dict(mask=torch.zeros(9, 32, 32, dtype=torch.bool)), "mask is empty"),
    "another size": (
        dict(mask=torch.ones(9, 32, 16, dtype=torch.bool)),
        "expected bool \\(9, 32, 32\\)",
    ),
    "a float mask": (dict(mask=torch.ones(9, 32, 32)), "mask is torch.float32"),
    "a float video": (dict(video=torch.zeros(9, 32, 32, 3)), "expected uint8"),
    "no colours": (dict(video=torch.zeros(9, 32, 32, dtype=torch.uint8)), "expected uint8"),
    "an array": (dict(video=torch.zeros(9, 32, 32, 3).byte().numpy()), "video is a ndarray; exp"),
    "a list": (dict(mask=[[True]]), "mask is a list; expected a torch tensor"),
    "no words": (dict(prompt=" "), "the prompt is ' '; expected words"),
    "no text": (dict(prompt=None), "the prompt is None; expected words"),
}


@pytest.mark.parametrize("settings", [KVLockConfig(), FlowEditConfig()], ids=["kv-lock", "flow"])
@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_requests_are_named(change, message, settings):
    request = dataclasses.replace(make_request(), **change)
    with pytest.raises(ValueError, match=message):
        edit_clips(make_backbone("wan"), [request], settings)


def test_clips_of_different_sizes_are_refused(backbone):
    small = make_request(1)
    small = dataclasses.replace(small, video=small.video[:5], mask=small.mask[:5])
    with pytest.raises(ValueError, match="different sizes; expected one size and frame count"):
        edit_clips(backbone, [make_request(), small], config())


def test_a_variants_seed_draws_the_foregrounds_noise_alone(backbone):
    request = wide_request()
    first, second = (
        prepare_clips(backbone, [dataclasses.replace(request, seed=s, background_seed=9)])
        for s in (0, 1)
    )
    inside = first.foreground[:, None].expand_as(first.start)
    assert torch.equal(first.start[~inside], second.start[~inside])
    assert torch.equal(first.noise, second.noise)
    assert not torch.equal(first.start[inside], second.start[inside])
    alone = prepare_clips(backbone, [dataclasses.replace(request, seed=1)])
    assert torch.equal(alone.start[inside], second.start[inside])
    assert torch.equal(alone.start, alone.noise)


def test_requests_share_a_source_where_all_that_makes_it_is_the_same():
    backbone, request = make_backbone("wan"), make_request()
    clips = prepare_clips(backbone, [request, dataclasses.replace(request, prompt="a cat")])
    assert clips.firsts == [0] and clips.source_of == [0, 0]
    others = [
        dataclasses.replace(request, video=request.video.clone()),
        dataclasses.replace(request, mask=request.mask.clone()),
        dataclasses.replace(request, source_prompt="a red dog"),
        dataclasses.replace(request, background_seed=3),
        dataclasses.replace(request, background_seed=0, seed=5),  # the first's own
    ]
    clips = prepare_clips(backbone, [request, *others])
    assert clips.firsts == [0, 1, 2, 3, 4] and clips.source_of == [0, 1, 2, 3, 4, 0]


def test_sources_in_any_order_go_to_their_own_clips(backbone):
    a, b = make_request(0), make_request(1)
    blue = dataclasses.replace(a, prompt="a blue cat")
    mixed = latents_of(backbone, [a, b, blue], config("rigid"))
    alone = torch.cat([latents_of(backbone, [r], config("rigid")) for r in (a, b, blue)])
    torch.testing.assert_close(mixed, alone, atol=1e-4, rtol=0)


def test_prompts_of_several_parts_are_stacked_and_picked_together():
    first, second = (Prompt((randn(3, 5, 2, seed=s), randn(3, 7, seed=s + 5))) for s in (0, 1))
    both = Prompt.stack([first, second])
    for part in range(2):
        expected = torch.cat([first.parts[part], second.parts[part]])
        assert torch.equal(both.parts[part], expected)
        assert torch.equal(both.pick([4, 0]).parts[part], expected[[4, 0]])
    assert torch.equal(pick(first.parts[0], [2, 2, 0]), first.parts[0][[2, 2, 0]])
