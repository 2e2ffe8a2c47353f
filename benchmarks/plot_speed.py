"""Cost against foreground share, with the floor, from what speed.py wrote.

python benchmarks/plot_speed.py FILE.json PICTURE.png
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

SHOWN = (
    "drop in the lock steps",
    "drop",
    "drop, refresh 2",
    "drop, refresh 4",
    "drop, 4 variants",
    "fast",
)


def main() -> None:
    """Draw."""
    rows = json.loads(Path(sys.argv[1]).read_text())
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, mode in enumerate(SHOWN):
        own = [row for row in rows if row["mode"] == mode]
        points = sorted((r["foreground"], r["time_ratio"], r["floor_ratio"]) for r in own)
        shares, times, floors = zip(*points)
        axes.plot(shares, times, "o-", color=f"C{index}", label=mode)
        axes.plot(shares, floors, ":", color=f"C{index}")
    axes.axhline(1.0, color="grey", linewidth=1)
    axes.set_xlabel("share of tokens that are computed")
    axes.set_ylabel("time, plain sampling = 1")
    axes.set_ylim(0, 1.1)
    first = rows[0]
    size = f"{first['model']}, {first['tokens']} tokens, {first['steps']} steps"
    axes.set_title(f"{size}; dotted: the floor")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(sys.argv[2], dpi=130)


if __name__ == "__main__":
    main()
