"""How the forwards are run: what time and memory they take, not what they compute. No torch here."""

from dataclasses import dataclass
from typing import Literal

from kvlock.contract.options import Part, option


@dataclass(frozen=True)
class Execution(Part):
    """Batches and single branches round differently in the last bits, and tiles of the VAE a little;
    everything else is exact."""

    branches: Literal["batched", "sequential"] = option(
        "batched",
        "source, conditional and unconditional in one forward, or one after the other: as the stock "
        "pipelines do, and with the lock layer by layer, which needs the least memory",
    )
    source_store: Literal["device", "host"] = option(
        "device", "where the source's keys and values wait for the next steps"
    )
    offload: Literal["none", "model", "group"] = option(
        "none",
        "what waits in the host's memory until it runs: nothing but the text encoder, every part "
        "of the model, or every block of the transformer, which is slow and needs the least",
    )
    tile_vae: bool = option(
        False, "encode and decode tile by tile, in less memory; moves pixels a little"
    )
    compile: bool = option(
        False, "compile the transformer's blocks (torch.compile): a slow first step"
    )
