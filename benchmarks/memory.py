"""What each mode needs beyond the weights at full size, counted on the meta device: no GPU.

    python benchmarks/memory.py [--models wan2.1-t2v-1.3b,...] [--foreground 0.2] [--json FILE]

832x480, 81 frames, bfloat16; nothing is loaded. Counted is the most that the steps' own tensors
take at once, as the code that edits makes them; an allocator adds to that.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kvlock.cost.estimate import Estimator, centred_mask
from kvlock.media.files import write_json
from kvlock.methods.options import with_options
from modes import FULL_SIZE, Mode

SIZE = (81, 480, 832)
MODELS = "wan2.1-t2v-1.3b,wan2.1-vace-1.3b,wan2.1-t2v-14b,wan2.1-vace-14b"


def steps_bytes(estimator: Estimator, mask: Tensor, mode: Mode) -> int:
    """The most beyond the weights; a source that waits on the host is there for one step only."""
    config = mode.config
    if mode.execution.source_store == "host":
        config = with_options(config, {"source_refresh": 1})
    return estimator.cost(mask, config, mode.execution).peak_bytes


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--foreground", type=float, default=0.2)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows, table = [], Table("model", *FULL_SIZE)
    for model in arguments.models.split(","):
        estimator = Estimator(model, torch.bfloat16)
        size, patch = estimator.latent_size(SIZE), estimator.backbone.patch_size
        mask = centred_mask(size, patch, arguments.foreground)
        for name, mode in FULL_SIZE.items():
            forwards = estimator.cost(mask, mode.config, mode.execution).branches
            peak = steps_bytes(estimator, mask, mode)
            row = {"model": model, "mode": name, "forwards": forwards, "peak_memory_bytes": peak}
            rows.append(row)
        counted = [f"{row['peak_memory_bytes'] / 1e9:.2f} GB" for row in rows[-len(FULL_SIZE) :]]
        table.add_row(model, *counted)
    Console(width=140).print(table)
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
