"""How the forwards are run: what time and memory they take, not what they compute. No torch here."""

from dataclasses import dataclass
from typing import Literal

from kvlock.options import Part, option


@dataclass(frozen=True)
class Execution(Part):
    """Batches and single branches round differently in the last bits; everything else is exact."""

    branches: Literal["batched", "sequential"] = option(
        "batched",
        "source, conditional and unconditional in one forward, or one after the other: as the stock "
        "pipelines do, and with the lock layer by layer, which needs the least memory",
    )
    source_store: Literal["device", "host"] = option(
        "device", "where the source's keys and values wait for the next steps"
    )
