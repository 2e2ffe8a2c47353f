"""How fast devices are: measured and kept, or by what is published."""

import json

import pytest
import torch

from kvlock.cost.dry_run import Cost
from kvlock.cost.estimate import Estimator, centred_mask
from kvlock.cost.gpus import GPUS, gpu_named, memory_bytes
from kvlock.cost.rates import Rates, attention_rate, device_rates, matmul_rate
from kvlock.cost.skeleton import skeleton
from kvlock.methods.catalogue import METHODS
from kvlock.methods.execution import Execution

CPU = torch.device("cpu")


@pytest.fixture
def backbone(folders):
    return skeleton(folders["wan-vace"], "meta", torch.float32)


def test_rates_are_numbers_of_this_device():
    assert matmul_rate(CPU, torch.float32, 64, 32) > 0
    assert attention_rate(CPU, torch.float32, 64, 2, 16) > 0


def test_a_device_is_measured_once(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = []
    first = device_rates(backbone, CPU, said.append)
    assert first.linear > 0 and first.attention > 0 and len(said) == 1 and "measuring" in said[0]
    assert device_rates(backbone, CPU, said.append) == first and len(said) == 1
    other = skeleton("shapes", "meta", torch.float32)
    assert device_rates(other, CPU, said.append) != first and len(said) == 2
    assert device_rates(backbone, CPU, said.append) == first and len(said) == 2
    assert [p.name for p in (tmp_path / "kvlock").iterdir()] == ["rates.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', '{"a": ["x", 1]}', "null"])
def test_a_broken_cache_is_measured_again(backbone, tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "kvlock" / "rates.json"
    file.parent.mkdir()
    file.write_text(content)
    rates = device_rates(backbone, CPU)
    assert [rates.linear, rates.attention] in json.loads(file.read_text()).values()


def test_without_a_cache_folder_it_is_measured_all_the_same(backbone, tmp_path, monkeypatch):
    (tmp_path / "kvlock").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert device_rates(backbone, CPU).linear > 0


def test_an_edit_takes_its_operations_over_the_rates():
    cost = Cost(1, 8 * 10**12, 3 * 10**12, 0)
    assert Rates(2e12, 1e12).seconds(cost) == 4 + 3


@pytest.mark.parametrize("name", ["4090", "RTX 4090", "nvidia-4090", "GeForce RTX 4090"])
def test_a_gpu_is_found_as_people_name_it(name):
    gpu = gpu_named(name)
    assert gpu.name == "4090" and gpu.memory_gb == 24 and gpu.tflops == 165.2
    assert 0 < gpu.rates.linear < gpu.tflops * 1e12 and not gpu.rates.measured


def test_the_table_of_gpus():
    names = [gpu.name for gpu in GPUS]
    assert len(set(names)) == len(names) and {"h100", "h200", "a100", "l40s", "3090"} <= set(names)
    assert all(gpu_named(name).name == name for name in names)
    assert gpu_named("A100 40GB").memory_gb == 40 and gpu_named("NVIDIA H100").memory_gb == 80


@pytest.mark.parametrize(
    "name, gpu, minutes",
    [("wan2.1-t2v-1.3b", "4090", (3, 6)), ("wan2.1-t2v-14b", "h100", (5, 9))],
)
def test_estimated_times_are_those_that_people_report(name, gpu, minutes):
    """81 frames at 480p in 50 guided steps: about 4 minutes, and 6 to 7."""
    estimator = Estimator(name, torch.bfloat16)
    mask = centred_mask(estimator.latent_size((81, 480, 832)), (1, 2, 2), 0.2)
    cost = estimator.cost(mask, METHODS["plain"], Execution("sequential"))
    assert minutes[0] < gpu_named(gpu).rates.seconds(cost) / 60 < minutes[1]


def test_a_gpu_that_is_not_in_the_table():
    with pytest.raises(ValueError, match="gpu '4900' is not in the table; did you mean 4090\\?"):
        gpu_named("4900")
    with pytest.raises(ValueError, match="expected one of 3060, .*--device-memory alone"):
        gpu_named("voodoo")


@pytest.mark.parametrize(
    "text, size",
    [("24GB", 24e9), ("24", 24e9), ("22.5 gb", 22.5e9), ("24GiB", 24 * 2**30), ("512MB", 512e6)],
)
def test_an_amount_of_memory(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "a lot", "-3GB", "0", "24TB", "nan", "1e9999"])
def test_what_is_no_amount(text):
    with pytest.raises(ValueError, match="expected an amount such as 24GB"):
        memory_bytes(text)
