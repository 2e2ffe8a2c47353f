"""What each mode needs beyond the weights at full size, counted on the meta device: no GPU, nothing loaded.

    python benchmarks/memory.py [--models wan2.1-t2v-1.3b,...] [--foreground 0.2] [--json FILE]

832x480, 81 frames, bfloat16. Counted is the most that the steps' own tensors take at once, as the code that edits
makes them; an allocator adds to that.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from kvlock.backbones.estimate import Estimator, centred_mask
from kvlock.methods.table import METHODS
from rich.console import Console
from rich.table import Table

from kvlock.core.config import KVLockConfig

SIZE = (81, 480, 832)
LOCK: dict[str, Any] = dict(METHODS["rigid"], background_anchor="none")
DROP: dict[str, Any] = dict(LOCK, drop_background="all")
MODES: dict[str, dict[str, Any]] = {
    "plain, row by row": dict(METHODS["plain"], rows="sequential"),
    "lean lock": LOCK,
    "lock, layer by layer": dict(LOCK, rows="sequential"),
    "drop": DROP,
    "fast": METHODS["fast"],
    "fast, source on the host": dict(METHODS["fast"], source_store="host"),
}
MODELS = "wan2.1-t2v-1.3b,wan2.1-vace-1.3b,wan2.1-t2v-14b,wan2.1-vace-14b"


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--foreground", type=float, default=0.2)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows, table = [], Table("model", *MODES)
    for model in arguments.models.split(","):
        estimator = Estimator(model, torch.bfloat16)
        mask = centred_mask(
            estimator.latent_size(SIZE), estimator.backbone.patch_size, arguments.foreground
        )
        for mode, fields in MODES.items():
            cost = estimator.cost(mask, KVLockConfig(**fields))
            rows.append(
                {
                    "model": model,
                    "mode": mode,
                    "forwards": cost.rows,
                    "peak_memory_bytes": cost.peak_bytes,
                }
            )
        table.add_row(
            model, *(f"{row['peak_memory_bytes'] / 1e9:.2f} GB" for row in rows[-len(MODES) :])
        )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
