"""Hub ids: the cache first, and one sentence where nothing is to be had."""

import shutil

import pytest
import torch

from kvlock.backbones import hub
from kvlock.backbones.checkpoints import family_of, weights_digest
from kvlock.backbones.loading import load_backbone
from support import tiny

ID, COMMIT = "somebody/tiny-vace", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def cached(cache):
    """The cache with a model in it, as the hub's library lays it out."""
    repo = cache / "models--somebody--tiny-vace"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    tiny.vace_pipe().save_pretrained(repo / "snapshots" / COMMIT)
    return repo / "snapshots" / COMMIT


@pytest.fixture(params=["offline", "unreachable"])
def nothing(request, monkeypatch):
    """No network: by the user's wish, or because nobody answers."""
    if request.param == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return request.param


@pytest.mark.parametrize("model", [ID, "wan2.1-vace-1.3b"])
def test_a_cold_cache_without_a_network_is_a_sentence_with_what_to_type(
    cache, nothing, model, capfd
):
    with pytest.raises(ValueError) as error:
        load_backbone(model)
    said = str(error.value)
    hub_id = ID if model == ID else "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    assert f"{hub_id} is not, or not whole, in the cache {cache}" in said and "\n" not in said
    assert f"type hf download {hub_id}" in said
    reason = {"offline": "HF_HUB_OFFLINE is set", "unreachable": "http://127.0.0.1:9 cannot be rea"}
    assert reason[nothing] in said
    assert capfd.readouterr().err == ""  # none of the library's own tries


def test_what_is_cached_needs_no_network(cached, nothing):
    assert family_of(ID).takes_control
    backbone = load_backbone(ID)
    own = tiny.vace_pipe().transformer.state_dict()
    loaded = backbone.pipe.transformer.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in own.items())
    assert weights_digest(ID) == ""


def test_what_is_half_in_the_cache_is_not_taken_for_the_whole(cached, nothing):
    shutil.rmtree(cached / "vae")
    with pytest.raises(ValueError, match="is not, or not whole, in the cache"):
        load_backbone(ID)


def test_a_known_model_is_recognised_without_the_hub(cache, nothing):
    assert family_of("wan2.1-vace-14b").name == "wan2.1-vace"


def test_an_error_of_the_hub_is_one_sentence(cache, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no\nsuch\nmodel")

    monkeypatch.setattr(hub, "_check_reachable", lambda hub_id: None)
    monkeypatch.setattr(hub, "hf_hub_download", fails)
    with pytest.raises(ValueError, match="could not be fetched from the hub: no$"):
        load_backbone(ID)
