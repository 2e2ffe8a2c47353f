"""GPUs that one may not have: their memory and speed by what their maker publishes."""

import difflib
import re
from dataclasses import dataclass

# What a video DiT reaches of the published peak, as a rule: large matrices about 60 %, attention
# through torch's kernels about 45 %. Estimates, not measurements.
LINEAR_SHARE, ATTENTION_SHARE = 0.6, 0.45


@dataclass(frozen=True)
class Gpu:
    """memory_gb: as sold, of 10**9 bytes. tflops: published, dense, bfloat16 with float32 sums."""

    name: str
    memory_gb: float
    tflops: float

    @property
    def linear(self) -> float:
        """FLOP a second in a block's linear layers, an estimate."""
        return LINEAR_SHARE * self.tflops * 1e12

    @property
    def attention(self) -> float:
        """The same in attention."""
        return ATTENTION_SHARE * self.tflops * 1e12


# Data sheets and architecture white papers of NVIDIA.
GPUS = (
    Gpu("3060", 12, 25.6),
    Gpu("3090", 24, 71),
    Gpu("4070", 12, 58.3),
    Gpu("4080", 16, 97.5),
    Gpu("4090", 24, 165.2),
    Gpu("5090", 32, 209.5),
    Gpu("a10", 24, 125),
    Gpu("l4", 24, 121),
    Gpu("l40s", 48, 362),
    Gpu("a6000", 48, 154.8),
    Gpu("a100-40gb", 40, 312),
    Gpu("a100", 80, 312),
    Gpu("h100", 80, 989),
    Gpu("h200", 141, 989),
    Gpu("b200", 180, 2250),
)


def gpu_named(name: str) -> Gpu:
    """`4090`, `RTX 4090`, `nvidia-h100`, ... Raises ValueError for one that is not in the table."""
    short = re.sub(r"nvidia|geforce|rtx|tesla", "", name.lower()).strip(" -_").replace(" ", "-")
    names = [gpu.name for gpu in GPUS]
    if short in names:
        return GPUS[names.index(short)]
    near = difflib.get_close_matches(short, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(names)}"
    raise ValueError(
        f"gpu {name!r} is not in the table; {hint} (for another one, --device-memory alone)"
    )


def memory_bytes(text: str) -> int:
    """`24GB`, `24` or `22.5 GiB` in bytes. Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(gb|gib|g|mb|mib)?\s*", text.lower())
    if not found or not float(found[1]):
        raise ValueError(f"device memory is {text!r}; expected an amount such as 24GB")
    unit = {"mb": 10**6, "mib": 2**20, "gib": 2**30}.get(found[2] or "gb", 10**9)
    return round(float(found[1]) * unit)
