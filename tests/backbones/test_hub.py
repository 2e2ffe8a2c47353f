"""Hub ids: the cache first, and one sentence where nothing is to be had."""

import errno
import shutil
import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

from kvlock.backbones import hub
from kvlock.backbones.checkpoints import family_of, weights_digest
from kvlock.backbones.loading import load_backbone
from kvlock.cli import main
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


@contextmanager
def _server(answer):
    """The address of a server that answers each call so; `None` accepts and says nothing."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def serve():
            held = []
            while not stop.is_set():
                with suppress(TimeoutError):
                    held.append(server.accept()[0])
                    if answer:
                        held[-1].sendall(answer)
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        thread.join()


SERVERS = {
    "hangs": None,
    "no HTTP": b"220 smtp.example.org\r\n",
    "a proxy alone": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
}


@pytest.fixture(params=["offline", "unreachable", "no name", *SERVERS])
def nothing(request, monkeypatch):
    """No network: by the user's wish, or because nobody answers."""
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    if request.param in SERVERS:
        with _server(SERVERS[request.param]) as address:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            yield f"the hub {address} cannot be reached"
        return
    if request.param == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield "HF_HUB_OFFLINE is set"
        return
    address = {"unreachable": "http://127.0.0.1:9", "no name": "http://nowhere.invalid"}
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address[request.param])
    yield f"the hub {address[request.param]} cannot be reached"


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
    assert nothing in said
    assert capfd.readouterr().err == ""  # none of the library's own tries


@pytest.mark.parametrize("model", [ID, "wan2.1-vace-14b"])
def test_an_edit_is_refused_before_anything_is_counted(cache, nothing, model, capsys, monkeypatch):
    monkeypatch.setattr("kvlock.editing.edit.plan", lambda job: pytest.fail("planned"))
    words = ["edit", __file__, "--mask", __file__, "--prompt", "x", "--model", model]
    assert main([*words, "--out", str(cache / "out")]) == 2
    assert nothing in capsys.readouterr().err


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


HTTP: Any = SimpleNamespace(headers={}, request=None)


class BrokenOff(Exception):
    """Such as the HTTP client's own, which are of no kind that others share."""


@pytest.mark.parametrize(
    "error, sentence",
    [
        (OSError("no\nsuch\nmodel"), r"could not be fetched from the hub \(OSError\); try again"),
        (OSError(errno.ENOSPC, "No space"), "has no room in .*; make some, or set HF_HOME$"),
        (BrokenOff("read"), r"could not be fetched from the hub \(BrokenOff\); try again"),
        (RepositoryNotFoundError("404", response=HTTP), "is not at the hub, or is private"),
        (GatedRepoError("403", response=HTTP), "asks for consent on its page"),
        (EntryNotFoundError("404"), "lacks a file of a diffusers folder at the hub"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_the_hub_is_one_sentence(cache, monkeypatch, error, sentence):
    def fails(*args, local_files_only=False):
        raise EntryNotFoundError("not in the cache") if local_files_only else error

    monkeypatch.setattr(hub, "_check_reachable", lambda hub_id: None)
    monkeypatch.setattr(hub, "hf_hub_download", fails)
    with pytest.raises(ValueError, match=f"^model '{ID}' {sentence}") as caught:
        load_backbone(ID)
    assert "\n" not in str(caught.value)
