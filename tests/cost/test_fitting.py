"""What is chosen for a device of some size, and what is advised where nothing fits."""

import re
from dataclasses import replace

import pytest
import torch

from kvlock.cost import fitting
from kvlock.cost.estimate import Estimator, Place, centred_mask
from kvlock.cost.fitting import check_memory, choose_execution
from kvlock.methods.catalogue import METHODS
from kvlock.methods.execution import Execution
from support.edits import config, dropped, short

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
KV_LOCK = METHODS["kv-lock"]
SHORT = (5, 240, 416)  # counted in no time; the weights are those of any clip
HELD = dropped(config("s-omega"), source_refresh=4)


@pytest.fixture(scope="module")
def large():
    """14B: 34.7 GB of weights in the transformer alone, 11.4 in the text encoder."""
    return Estimator("wan2.1-vace-14b", torch.bfloat16)


@pytest.fixture(scope="module")
def small():
    return Estimator("wan2.1-vace-1.3b", torch.bfloat16)


@pytest.fixture
def toy(folders, monkeypatch):
    """A tiny model whose VAE takes nothing, so that the steps decide."""
    estimator = Estimator(folders["wide"], torch.bfloat16)
    monkeypatch.setattr(Estimator, "coding_bytes", lambda self, size, tiled: 0)
    return estimator


def _place(estimator, capacity, device=CUDA, size=SHORT, variants=1):
    mask = centred_mask(estimator.latent_size(size), estimator.backbone.patch_size, 0.2)
    return Place(device, size, mask, variants, int(capacity))


def _refused(estimator, settings, execution, place):
    with pytest.raises(ValueError) as error:
        check_memory(estimator, settings, execution, place)
    said = str(error.value)
    assert "\n" not in said and said.endswith(" (--no-memory-check goes on regardless)")
    return said


def _refusal(estimator, settings, capacity, **place):
    place = _place(estimator, capacity, **place)
    return _refused(estimator, settings, choose_execution(estimator, settings, place, {}), place)


@pytest.mark.parametrize("capacity", [11.5e9, 16e9, 24e9, 31.5e9])
def test_weights_that_do_not_fit_are_not_answered_with_a_shorter_clip(large, capacity):
    said, place = _refusal(large, KV_LOCK, capacity), _place(large, capacity)
    start = f"the edit needs at least 38.5 GB on cuda, which has {capacity / 1e9:.1f} GB; try "
    assert said.startswith(f"{start}--offload group (slow), which needs")
    assert "frames" not in said
    assert (", or --model wan2.1-vace-1.3b, which needs" in said) == (capacity > 14e9)
    execution = choose_execution(large, KV_LOCK, place, {"offload": "group"})
    need = check_memory(large, KV_LOCK, execution, place)  # what is advised does fit
    assert need <= capacity and f"(slow), which needs {need / 1e9:.1f} GB" in said


def test_parts_wait_on_the_host_before_anything_is_refused(large):
    for capacity, offload in ((80e9, "none"), (40e9, "model")):
        place = _place(large, capacity)
        execution = choose_execution(large, KV_LOCK, place, {})
        assert execution.offload == offload
        assert check_memory(large, KV_LOCK, execution, place) <= capacity


def test_bfloat16_is_advised_where_it_would_do():
    estimator = Estimator("wan2.1-vace-1.3b", torch.float32)
    assert "try --dtype bfloat16, which needs" in _refusal(estimator, KV_LOCK, 20e9)
    on_cpu = _refusal(estimator, KV_LOCK, 30e9, device=CPU)
    assert "on cpu, which has 30.0 GB; try --dtype bfloat16, which needs" in on_cpu


def test_a_shorter_clip_is_advised_where_the_clip_is_what_takes_the_room(small):
    place = _place(small, 18e9, size=(161, 480, 832))
    said = _refused(small, KV_LOCK, Execution("batched", offload="model", tile_vae=True), place)
    assert "try --branches sequential, which needs" in said
    said = _refused(
        small,
        KV_LOCK,
        Execution("sequential", offload="group", tile_vae=True),
        replace(place, capacity=5 * 10**9),
    )
    assert re.search(r"try a clip of \d+ frames, which needs", said)


def test_fewer_variants_are_advised_before_a_shorter_clip(toy):
    settings = config("rigid", lock_steps=1.0)
    execution = Execution("sequential", offload="group", tile_vae=True)
    place = _place(toy, 0, size=(9, 192, 192), variants=5)
    needs = [toy.need(settings, execution, replace(place, variants=n)) for n in range(1, 6)]
    assert needs == sorted(set(needs))
    said = _refused(toy, settings, execution, replace(place, capacity=needs[2]))
    assert "try 3 variants at a time, which needs" in said
    said = _refused(toy, settings, execution, replace(place, capacity=needs[0]))
    assert "try one variant at a time, which needs" in said


def test_where_nothing_fits_it_is_said(small):
    assert "no setting of kvlock makes it fit there" in _refusal(small, KV_LOCK, 1e8)
    on_cpu = _refusal(small, KV_LOCK, 10e9, device=CPU)
    assert "--offload" not in on_cpu and "no setting of kvlock makes it fit there" in on_cpu


def test_the_hosts_memory_is_tried_for_the_source_before_the_last_tenth(toy):
    place = _place(toy, 10**12, size=(9, 192, 192))
    assert choose_execution(toy, HELD, place, {}) == Execution()
    need = toy.need(HELD, Execution(), place)
    held = toy.peak_bytes(
        toy.cost(place.foreground, HELD, Execution()).peak_bytes, place, Execution()
    )
    assert held < need - 1  # the tensors alone would still fit
    room, given = replace(place, capacity=need - 1), {"offload": "none"}
    assert choose_execution(toy, HELD, room, given) == Execution(source_store="host")
    assert choose_execution(toy, HELD, room, {}).offload == "model"  # moves less
    assert choose_execution(toy, HELD, room, given | {"source_store": "device"}) == Execution()
    least = Execution("sequential", offload="group", tile_vae=True)
    hosted = toy.need(HELD, replace(least, source_store="host"), place)
    said = _refused(toy, HELD, least, replace(room, capacity=hosted))
    assert "try --source-store host, which needs" in said


def test_on_the_cpu_nothing_waits_elsewhere(toy):
    place = _place(toy, 1, device=CPU, size=(9, 192, 192))
    assert choose_execution(toy, HELD, place, {}) == Execution()


def test_what_is_given_is_not_chosen(toy, monkeypatch):
    monkeypatch.setattr(fitting, "SMALL_BATCH_BYTES", 0)
    place = _place(toy, 10**12, size=(9, 192, 192))
    settings = config("rigid")
    assert choose_execution(toy, settings, place, {}) == Execution("sequential")
    assert choose_execution(toy, settings, place, {"branches": "batched"}) == Execution("batched")
    given = {"offload": "group", "tile_vae": True, "compile": True}
    chosen = choose_execution(toy, settings, place, given)
    assert chosen == Execution("sequential", "device", "group", True, True)


def test_without_the_check_the_way_of_running_is_chosen_all_the_same(small):
    """`--no-memory-check` skips `check_memory`; memory does not grow for it."""
    place = _place(small, 10e9, size=(81, 480, 832))
    execution = choose_execution(small, KV_LOCK, place, {})
    assert execution.branches == "sequential" and execution.offload == "model"
    batched, chosen = (
        small.cost(place.foreground, KV_LOCK, e).peak_bytes for e in (Execution(), execution)
    )
    assert chosen < batched / 2.5


def test_flowedit_is_checked_too(toy):
    place = _place(toy, 1, size=(9, 192, 192))
    said = _refused(toy, short("flowedit"), Execution(), place)
    assert "no setting of kvlock makes it fit there" in said
    enough = replace(place, capacity=10**9)
    assert check_memory(toy, short("flowedit"), Execution(), enough) > 0
