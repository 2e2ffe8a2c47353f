"""What each mode costs against plain sampling, in time and memory, and how far from the floor.

    python benchmarks/speed.py [--model middle] [--steps N] [--repeats 3]
                               [--foreground 0.05,0.1,0.2,0.4] [--modes "plain;drop"]
                               [--whole] [--compile] [--json FILE] [--quick]

Models: `middle`, a random Wan-VACE of width 384 on 8,400 tokens; shapes; or a known model's
architecture with random weights (wan2.1-t2v-1.3b, ... on a GPU, 832x480, 81 frames). Steps of one
kind all cost the same, so each mode runs a few steps of each of its kinds, and what `--steps` of
them would take is summed over its schedule; `--whole` runs them all. Modes run in turn, as often
as --repeats says; ratios are medians over the turns. Only steps are timed, not encoding. Plain
sampling runs branch by branch, as diffusers' pipelines do. `--foreground` is the share of tokens
that are computed, mask and margin together. The floor is the operations a mode has to do over the
rates that a large matrix product and a large attention reach here, in the same run. Memory is what
a mode needs beyond the weights: measured on a GPU, elsewhere counted on the meta device.
"""

import argparse
import platform
import statistics
from pathlib import Path
from typing import Any

import diffusers
import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from kvlock.media.files import write_json
from modes import MODES, WITHOUT_FOREGROUND
from timing import Run, named, run_of

Times = dict[tuple[str, float], list[float]]


def measure(
    run: Run, modes: list[str], shares: list[float], steps: int, repeats: int, whole: bool
) -> list[dict[str, Any]]:
    """One row a mode and share."""
    pairs = [(m, s) for m in modes for s in (shares[:1] if m in WITHOUT_FOREGROUND else shares)]
    times, plains = _timed(run, pairs, shares[0], steps, repeats, whole)
    plain_floor = run.floor(run.cost(MODES["plain"], shares[0], steps))
    plain = {"plain_seconds": statistics.median(plains), "plain_floor_seconds": plain_floor}
    return [_row(run, pair, steps, ratios) | plain for pair, ratios in times.items()]


def _timed(
    run: Run,
    pairs: list[tuple[str, float]],
    plain_share: float,
    steps: int,
    repeats: int,
    whole: bool,
) -> tuple[Times, list[float]]:
    """Each pair's time over plain sampling's of the same turn, and plain sampling's seconds."""
    times: Times = {pair: [] for pair in pairs}
    plains: list[float] = []
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("speed", total=repeats * (1 + len(pairs)))
        for _ in range(repeats):
            plains.append(run.seconds(MODES["plain"], plain_share, steps, whole))
            bar.advance(task)
            for mode, share in pairs:
                seconds = run.seconds(MODES[mode], share, steps, whole)
                times[mode, share].append(seconds / plains[-1])
                bar.advance(task)
    return times, plains


def _row(run: Run, pair: tuple[str, float], steps: int, ratios: list[float]) -> dict[str, Any]:
    """Of one edit; several variants share what a turn took."""
    (name, share), mode = pair, MODES[pair[0]]
    cost, plain = run.cost(mode, share, steps), run.cost(MODES["plain"], share, steps)
    return {
        "mode": name,
        "model": run.model,
        "tokens": run.tokens,
        "foreground": None if name in WITHOUT_FOREGROUND else share,
        "steps": steps,
        "forwards": cost.branches / mode.variants,
        "time_ratio": statistics.median(ratios) / mode.variants,
        "floor_ratio": run.floor(cost) / run.floor(plain) / mode.variants,
        "peak_memory_bytes": run.peak(mode, share, cost),
        "time_ratios": [ratio / mode.variants for ratio in ratios],
    }


def show(run: Run, rows: list[dict[str, Any]], steps: int) -> None:
    """Print what ran, and the table."""
    name = f"CPU, {torch.get_num_threads()} threads"
    if run.device.type == "cuda":
        name = torch.cuda.get_device_name()
    dtype = run.meta.pipe.transformer.dtype
    print(f"{run.model}, {run.tokens} tokens, {steps} steps, {dtype}, {name}")
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(f"{platform.processor()}, python {platform.python_version()}, {versions}")
    seconds, floor = rows[0]["plain_seconds"], rows[0]["plain_floor_seconds"]
    away = f"{seconds / floor:.2f} times its floor"
    print(f"plain: {seconds:.2f} s, {away}; distances are against that")
    table = Table("mode", "f", "forwards", "time", "floor", "distance", "GB beyond weights")
    for row in rows:
        f, distance = row["foreground"], row["time_ratio"] / row["floor_ratio"]
        numbers = (row["time_ratio"], row["floor_ratio"], distance, row["peak_memory_bytes"] / 1e9)
        share = "" if f is None else f"{f:g}"
        table.add_row(row["mode"], share, f"{row['forwards']:g}", *(f"{x:.2f}" for x in numbers))
    Console().print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="middle")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--foreground", default="0.05,0.1,0.2,0.4")
    parser.add_argument("--modes", default=";".join(MODES), help="names, with ; between them")
    parser.add_argument("--whole", action="store_true", help="run every step of every mode")
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks, in plain sampling too"
    )
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="the shapes model at one share")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.foreground = "shapes", "0.2"
    modes = arguments.modes.split(";")
    for mode in modes:
        named(mode)
    run = run_of(arguments.model, arguments.compile)
    shares = [float(share) for share in arguments.foreground.split(",")]
    rows = measure(run, modes, shares, arguments.steps, arguments.repeats, arguments.whole)
    show(run, rows, arguments.steps)
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
