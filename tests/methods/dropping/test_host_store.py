"""Keys and values on the host: written over, and fetched a layer ahead."""

import pytest
import torch

from kvlock.methods.dropping.host_store import HostStore
from kvlock.methods.dropping.source_memory import SourceMemory
from kvlock.methods.edit import edit_clips
from kvlock.methods.execution import Execution
from support.draws import randn
from support.edits import config, dropped, latents_of, make_backbone, wide_request

CPU = torch.device("cpu")
HOST = Execution(source_store="host")


def test_the_hosts_memory_is_taken_once_and_written_again():
    store = HostStore()
    first = store.put(0, 3, (randn(1, 5, 4), randn(1, 5, 4, seed=1)))
    again = store.put(0, 3, (randn(1, 5, 4, seed=2), randn(1, 5, 4, seed=3)))
    assert all(a is b for a, b in zip(first, again))
    assert torch.equal(again[0], randn(1, 5, 4, seed=2))
    other = store.put(1, 3, (randn(1, 5, 4), randn(1, 5, 4)))
    assert other[0].data_ptr() != first[0].data_ptr()
    larger = store.put(0, 3, (randn(1, 6, 4), randn(1, 6, 4)))
    assert larger[0].shape == (1, 6, 4)


def test_what_comes_back_has_room_behind_it():
    store = HostStore()
    key, value = randn(1, 5, 4).bfloat16(), randn(1, 5, 4, seed=1).bfloat16()
    kept = store.put(0, 0, (key, value))
    back = store.fetch(kept, 3, CPU)
    store.arrive()
    assert all(x.shape == (1, 8, 4) and x.dtype == torch.bfloat16 for x in back)
    assert torch.equal(back[0][:, :5], key) and torch.equal(back[1][:, :5], value)


def _noted(monkeypatch, *methods):
    """The names of these methods as they are called, `enter` for a block's first branch alone."""
    noted = []

    def note(cls, name):
        method = getattr(cls, name)

        def noting(self, *args):
            if name != "enter" or args[0] == 0:
                noted.append(name)
            return method(self, *args)

        monkeypatch.setattr(cls, name, noting)

    for cls, name in methods:
        note(cls, name)
    return noted


def test_each_block_begins_to_fetch_what_the_next_one_needs(monkeypatch):
    backbone = make_backbone("wan-vace")
    methods = ((HostStore, "put"), (HostStore, "fetch"), (SourceMemory, "enter"))
    noted = _noted(monkeypatch, *methods)
    options = dict(num_inference_steps=2, lock_steps=2)
    settings = dropped(config("s-omega", **options), source_refresh=2)
    edit_clips(backbone, [wide_request()], settings, HOST)
    layers = 3 + 2  # of the trunk and of the control stream
    assert noted[: 2 * layers] == ["enter", "put"] * layers
    first, *others, last = noted[2 * layers :]
    assert (first, last) == ("enter", "enter")
    assert others == ["fetch", "fetch", *["enter", "fetch"] * (layers - 2)]


@pytest.mark.parametrize("name", ["wan", "wan-vace"])
def test_a_forward_that_fails_leaves_nothing_on_its_way(name):
    backbone = make_backbone(name)
    settings = dropped(config("s-omega"), source_refresh=2)
    expected = latents_of(backbone, [wide_request()], settings, HOST)
    calls = []

    def fails(*_):
        calls.append(1)
        if len(calls) == 5:  # in the second step: branches of three, then of two
            raise ZeroDivisionError

    hook = backbone.pipe.transformer.blocks[1].register_forward_pre_hook(fails)
    with pytest.raises(ZeroDivisionError):
        edit_clips(backbone, [wide_request()], settings, HOST)
    hook.remove()
    assert torch.equal(latents_of(backbone, [wide_request()], settings, HOST), expected)
