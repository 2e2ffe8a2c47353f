"""What is free, and not what is built in."""

import pytest
import torch

from kvlock.cost import free_memory
from kvlock.cost.free_memory import Container, device_bytes

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 1000 KiB of which 600 are available, and no container."""
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:  600 kB\nCached: 5 kB\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    group = Container(tmp_path, "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(free_memory, "CONTAINERS", (group,))
    return tmp_path


def in_container(folder, limit):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("300000\n")
    (folder / "memory.stat").write_text("anon 1\ninactive_file 50000\nactive_file 7\n")


def test_memory_that_others_use_is_not_free(machine):
    assert device_bytes(CPU) == 600 * 1024


def test_a_container_has_what_it_does_not_use_and_its_cache(machine):
    in_container(machine, 400000)
    assert device_bytes(CPU) == 400000 - 300000 + 50000


@pytest.mark.parametrize("limit", ["max", 2**63])
def test_a_container_without_a_limit_has_the_machines(machine, limit):
    in_container(machine, limit)
    assert device_bytes(CPU) == 600 * 1024


def test_a_machine_that_says_nothing_has_all_that_is_built_in(machine):
    (machine / "meminfo").unlink()
    assert device_bytes(CPU) > 1e9
