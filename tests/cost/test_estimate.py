"""What an edit needs of a device, from configs alone."""

import re
from dataclasses import replace

import pytest
import torch

from kvlock.backbones.known_models import KNOWN_MODELS
from kvlock.backbones.loading import load_backbone
from kvlock.cost.counting import peak_of
from kvlock.cost.estimate import HEADROOM, Estimator, Place, centred_mask, device_bytes
from kvlock.cost.fitting import check_memory, choose_execution
from kvlock.methods.catalogue import METHODS
from kvlock.methods.execution import Execution
from support.edits import config, dropped, make_backbone, make_request

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
REAL = [m.name for m in KNOWN_MODELS if not m.packaged]
CLIP = (81, 480, 832)


@pytest.fixture(scope="module")
def vace():
    return Estimator("wan2.1-vace-1.3b", torch.bfloat16)


def _place(estimator, size, share=0.2, capacity=None, device=CUDA, variants=1):
    mask = centred_mask(estimator.latent_size(size), estimator.backbone.patch_size, share)
    return Place(device, size, mask, variants, capacity)


@pytest.mark.parametrize("name", REAL)
def test_the_weights_are_what_the_table_says(name):
    weights = Estimator(name, torch.bfloat16).weights
    known = next(m for m in KNOWN_MODELS if m.name == name)
    together = weights.transformer + weights.vae + weights.text
    assert together / 1e9 == pytest.approx(known.weights_gb, abs=0.1)
    assert weights.streamed < weights.transformer / 15 and weights.text_layer < weights.text / 4


def test_the_weights_of_a_folder_are_its_files(folders):
    pipe = load_backbone(folders["wan-vace"]).pipe
    weights = Estimator(folders["wan-vace"], torch.float32).weights
    for part, size in (("transformer", weights.transformer), ("vae", weights.vae)):
        assert size == sum(p.numel() * 4 for p in getattr(pipe, part).parameters())
    assert weights.text == sum(p.numel() * 4 for p in pipe.text_encoder.parameters())


def test_the_vae_has_the_budget_that_others_give_it(vace):
    """ComfyUI: 7000 bytes a pixel and byte of dtype, whatever the number of frames."""
    for height, width in ((480, 832), (720, 1280)):
        theirs = 7000 * height * width * 4
        assert vace.coding_bytes((9, height, width), False) == pytest.approx(theirs, rel=0.03)
        assert vace.coding_bytes((9, height, width), True) < theirs / 3
    longer = vace.coding_bytes((81, 480, 832), False) - vace.coding_bytes((9, 480, 832), False)
    assert longer == 2 * 72 * 3 * 480 * 832 * 4


def test_what_is_on_the_device_together_is_what_counts(vace):
    place = _place(vace, CLIP)
    weights, coding = vace.weights, vace.coding_bytes(place.video_size, False)
    run = 3 * 10**9
    none, model, group = (
        vace.peak_bytes(run, place, Execution(offload=o)) for o in ("none", "model", "group")
    )
    assert none == weights.transformer + weights.vae + coding
    assert model == group == weights.vae + coding > weights.text
    tiled = Execution(offload="model", tile_vae=True)
    assert vace.peak_bytes(run, place, tiled) == weights.text
    assert vace.peak_bytes(10**10, place, tiled) == weights.transformer + 10**10
    streamed = replace(tiled, offload="group")
    assert vace.peak_bytes(run, place, streamed) == weights.streamed + run
    on_cpu = vace.peak_bytes(run, replace(place, device=CPU), Execution())
    assert on_cpu == weights.text + none


def test_a_tenth_of_the_device_is_left_free(vace):
    place = _place(vace, (9, 480, 832))
    peak = vace.peak_bytes(0, place, Execution())
    assert vace.least(Execution(), place) == pytest.approx(peak / (1 - HEADROOM))
    assert vace.need(METHODS["plain"], Execution(), place) >= vace.least(Execution(), place)


def test_the_readmes_edit_runs_on_a_card_of_24_gb(vace):
    """The text encoder, 11.4 GB, is gone when the VAE takes as much."""
    place = _place(vace, CLIP, capacity=24 * 10**9)
    execution = choose_execution(vace, METHODS["kv-lock"], place, {})
    assert execution == Execution("sequential")
    assert check_memory(vace, METHODS["kv-lock"], execution, place) < 20e9


def test_what_the_source_holds_does_not_count_on_the_host(folders, monkeypatch):
    estimator = Estimator(folders["wide"], torch.float32)
    monkeypatch.setattr(estimator, "coding_bytes", lambda size, tiled: 0)
    place = _place(estimator, (9, 192, 192))
    settings = dropped(config("s-omega"), source_refresh=4)
    held, hosted = (
        estimator.need(settings, Execution(source_store=store), place)
        for store in ("device", "host")
    )
    assert hosted < held


@pytest.mark.parametrize("size", [(10, 480, 832), (9, 481, 832), (9, 480, 840)])
def test_clips_that_do_not_suit_the_model_are_named(vace, size):
    sentence = f"{size[2]}x{size[1]} and {size[0]} frames do not suit .*expected sides that divide"
    with pytest.raises(ValueError, match=f"{sentence} by 16 and 16, and 4n\\+1 frames"):
        vace.latent_size(size)


def test_a_model_that_could_not_be_loaded_has_no_estimate(tmp_path):
    with pytest.raises(ValueError, match="neither a known name"):
        Estimator("nobody", torch.float32)
    with pytest.raises(ValueError, match=re.escape("model_index.json: there is no such file")):
        Estimator(str(tmp_path), torch.float32)


def test_a_centred_mask_covers_its_share():
    for share in (0.05, 0.2, 1.0):
        mask = centred_mask((3, 60, 104), (1, 2, 2), share)
        assert mask.float().mean() == pytest.approx(share, abs=0.01)
        assert torch.equal(mask, mask.flip(1).flip(2)) or share < 1


def test_the_cpu_has_memory():
    assert device_bytes(CPU) > 1e9


def test_a_tiled_vae_takes_less_and_gives_nearly_the_same(folders, vace):
    video, peaks = torch.empty(1, 3, 5, 480, 832, device="meta"), []
    for tiled in (False, True):
        codec = vace.backbone.pipe.vae
        codec.enable_tiling() if tiled else codec.disable_tiling()
        peaks.append(peak_of(lambda codec=codec: codec.encode(video)))
    assert peaks[1] < peaks[0] / 3
    backbone = make_backbone("wan-vace")
    clip = make_request().video[None].repeat(1, 1, 4, 4, 1)
    whole = backbone.encode_video(clip)
    backbone.pipe.vae.enable_tiling(64, 64, 48, 48)
    tiled = backbone.encode_video(clip)
    assert tiled.dtype == torch.float32 and not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2 * whole.abs().mean()
