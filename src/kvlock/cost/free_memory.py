"""The memory that is free: of a GPU, of the machine, of the container."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Container:
    """Files of a control group: its limit, what is used, and by what name the cache in it goes."""

    folder: Path
    limit: str
    used: str
    cache: str

    def free(self) -> int | None:
        """Bytes; None where there is no limit, or no such group."""
        try:
            limit, used = (int((self.folder / f).read_text()) for f in (self.limit, self.used))
            stat = (self.folder / "memory.stat").read_text().split()
        except (OSError, ValueError):  # "max", for one
            return None
        cache = dict(zip(stat[::2], stat[1::2])).get(self.cache, "0")
        return max(0, limit - used + int(cache))  # the system takes the cache back where it must


CONTAINERS = (
    Container(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    Container(
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def device_bytes(device: torch.device) -> int:
    """The memory of a GPU that is free; on the CPU what the machine and the container have free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = (container.free() for container in CONTAINERS)
    return min([_machine_free(MEMINFO), *(free for free in found if free is not None)])


def _machine_free(meminfo: Path) -> int:
    """What Linux says is available; elsewhere all that is built in."""
    if meminfo.is_file():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
