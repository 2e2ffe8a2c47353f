"""What the transformers are trained on: masks, latents, and how they are kept."""

from dataclasses import replace

import numpy as np
import torch
from diffusers import WanVACEPipeline

from kvlock.shapes import checkpoint
from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import random_edit
from kvlock.shapes.training import latents
from kvlock.shapes.training.latents import (
    BUCKETS,
    clips_in,
    encode_clips,
    load_latents,
    mask_channels,
    object_tokens,
    training_mask,
    unpack_mask,
)
from kvlock.shapes.training.vae import TRAINING_SEEDS

SIZE = (9, 96, 96)


def test_mask_channels_are_those_of_the_vace_pipeline():
    mask = torch.from_numpy(render_mask(random_edit(2), *SIZE))
    pipe = WanVACEPipeline.__new__(WanVACEPipeline)
    object.__setattr__(pipe, "transformer", checkpoint.build_vace())
    object.__setattr__(pipe, "vae_scale_factor_spatial", 8)
    object.__setattr__(pipe, "vae_scale_factor_temporal", 4)
    expected = pipe.prepare_masks(mask.float()[None, None], [[]])[0]
    assert torch.equal(mask_channels(mask).float(), expected)


def test_packed_masks_come_back():
    masks = torch.rand(2, 64, 3, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = torch.from_numpy(np.packbits(masks.numpy(), axis=1))
    assert packed.shape == (2, 8, 3, 4, 4) and torch.equal(unpack_mask(packed), masks)


def test_training_masks_hold_every_pixel_that_the_edit_changes():
    wider, tighter = 0, 0
    for seed in range(TRAINING_SEEDS, TRAINING_SEEDS + 40):
        edit = random_edit(seed)
        own, mask = render_mask(edit, *SIZE), training_mask(edit, seed, *SIZE)
        clips = [render_scene(s, *SIZE) for s in (edit.source, edit.target)]
        assert not ((clips[0] != clips[1]).any(axis=-1) & ~mask).any()
        wider, tighter = wider + (mask & ~own).any(), tighter + (own & ~mask).any()
    assert 2 <= wider <= 20 and 1 <= tighter <= 15


def test_buckets_draw_training_scenes_of_their_own():
    numbers = range(1_000_000)
    seeds = [range(b.first_seed, b.first_seed + len(numbers)) for b in BUCKETS]
    assert all(r.start >= TRAINING_SEEDS for r in seeds)
    assert all(a.stop <= b.start for a, b in zip(seeds, seeds[1:]))
    assert sum(b.share for b in BUCKETS) == 1 and [b.batch for b in BUCKETS] == [8, 3, 6]


def test_objects_of_a_wide_clip_are_where_its_pixels_are():
    bucket = BUCKETS[2]
    for edit in bucket.edits(range(4)):
        tokens = object_tokens(edit, bucket)
        assert tokens.shape == bucket.latent_size == (3, 12, 16)
        for shape in edit.target.shapes:
            x, y = shape.centre(0)
            assert tokens[0, int(y * 12), int(x * 12)]
        assert tokens.any() == bool(edit.target.shapes) and not tokens.all()


def test_latents_are_encoded_once_and_by_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 2)
    monkeypatch.setattr(latents, "BUCKETS", (replace(BUCKETS[0], share=1.0),))
    torch.manual_seed(0)
    checkpoint.build_vae().save_pretrained(tmp_path / "vae")
    encode_clips(tmp_path / "vae", tmp_path / "latents", 2, "cpu")
    first = tmp_path / "latents" / "9x96x96" / "0000.safetensors"
    written = first.stat().st_mtime_ns
    encode_clips(tmp_path / "vae", tmp_path / "latents", 4, "cpu")
    rows = load_latents(tmp_path / "latents", 4)["9x96x96"]
    assert clips_in(latents.BUCKETS[0], 4) == 4 and first.stat().st_mtime_ns == written
    assert rows["target"].shape == rows["inactive"].shape == (4, 16, 3, 12, 12)
    edits = latents.BUCKETS[0].edits(range(4))
    for row, edit in enumerate(edits):
        mask = training_mask(edit, TRAINING_SEEDS + row, *SIZE)
        channels = unpack_mask(rows["mask"][row : row + 1])[0]
        assert torch.equal(channels, mask_channels(torch.from_numpy(mask)))
        assert np.array_equal(rows["objects"][row].numpy(), object_tokens(edit, BUCKETS[0]))
    assert not torch.equal(rows["target"], rows["inactive"])
