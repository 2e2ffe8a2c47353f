"""GPUs that one may not have: their memory and speed by what their maker publishes."""

import re
from dataclasses import dataclass

from kvlock.contract.options import meant
from kvlock.cost.rates import Rates

# What Wan reaches of the published peak, by what people report of its own code. An RTX 4090 makes a
# clip of 81 frames at 480p with the 1.3B model in about 4 minutes (Wan's model card): 0.7 of its
# peak. An H100 makes one with 14B in 6 to 7 minutes (bytedance/ATI#7): 0.4. Torch's attention
# kernels do not use all of what is new in Hopper and Blackwell. Estimates, not measurements.
USUAL_SHARE, HOPPER_SHARE = 0.65, 0.4


@dataclass(frozen=True)
class Gpu:
    """memory_gb: as sold, of 10**9 bytes. tflops: published, dense, bfloat16 with float32 sums.

    share: of it, what a video DiT reaches.
    """

    name: str
    memory_gb: float
    tflops: float
    share: float = USUAL_SHARE

    @property
    def rates(self) -> Rates:
        """Estimated, the same in linear layers and in attention."""
        flops = self.share * self.tflops * 1e12
        return Rates(flops, flops, measured=False)


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
    Gpu("h100", 80, 989, HOPPER_SHARE),
    Gpu("h200", 141, 989, HOPPER_SHARE),
    Gpu("b200", 180, 2250, HOPPER_SHARE),
)


def gpu_named(name: str) -> Gpu:
    """`4090`, `RTX 4090`, `nvidia-h100`, ... Raises ValueError for one that is not in the table."""
    short = re.sub(r"nvidia|geforce|rtx|tesla", "", name.lower()).strip(" -_").replace(" ", "-")
    names = [gpu.name for gpu in GPUS]
    if short in names:
        return GPUS[names.index(short)]
    raise ValueError(
        f"gpu {name!r} is not in the table; {meant(short, names)} (for another one, "
        "--device-memory alone)"
    )


def memory_bytes(text: str) -> int:
    """`24GB`, `24` or `22.5 GiB` in bytes. Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(gb|gib|g|mb|mib)?\s*", text.lower())
    if not found or not float(found[1]):
        raise ValueError(f"device memory is {text!r}; expected an amount such as 24GB")
    unit = {"mb": 10**6, "mib": 2**20, "gib": 2**30}.get(found[2] or "gb", 10**9)
    return round(float(found[1]) * unit)
