"""A GPU day: half an hour on one GPU, with random weights.

    python benchmarks/gpu_day.py --out DIR [--stages 1,2,...] [--toy]

Seven stages (gpu_stages.py), each in a process of its own with a time limit. A stage that ends
writes DIR/stage-N.json, and one that is there is skipped, so that the same command goes on after a
cut; what a stage that did not end had measured stands in DIR/stage-N.part.json, what it said in
DIR/stage-N.log. All together is DIR/gpu-day.json. `--toy` runs everything at toy size, on the CPU
too. Looks cannot be judged with random weights.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu_stages import STAGES
from kvlock.media.files import write_json

BENCHMARKS = Path(__file__).parent


def run_stage(number: int, out: Path, toy: bool) -> str:
    """Run it, unless it is there; how that went, in a line.

    Raises ValueError where a toy stands in the way of the real thing, or the opposite.
    """
    done, log = out / f"stage-{number}.json", out / f"stage-{number}.log"
    if done.is_file():
        if json.loads(done.read_text())["toy"] != toy:
            raise ValueError(f"{done} is of another size (--toy); give another --out")
        return "is there"
    limit, began = STAGES[number].limit_s, time.monotonic()
    code = _run(number, out, toy, log, limit)
    if code is None:
        return f"was cut off after {limit} s"
    seconds = f"{time.monotonic() - began:.0f} s"
    if code or not done.is_file():
        return f"failed after {seconds}: {log}"
    return f"{seconds}{_in_short(json.loads(done.read_text()))}"


def _run(number: int, out: Path, toy: bool, log: Path, limit: int) -> int | None:
    """The exit code, None after the limit; nothing that the stage started stays behind."""
    command = [sys.executable, str(BENCHMARKS / "gpu_stages.py"), str(number), str(out)]
    with log.open("w") as said:
        stage = subprocess.Popen(
            command + ["--toy"] * toy, stdout=said, stderr=said, start_new_session=True
        )
        try:
            return stage.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(stage.pid, signal.SIGKILL)
            stage.wait()


def _in_short(record: dict) -> str:
    """How many of a stage's parts failed, or lack a GPU."""
    parts = [json.dumps(value) for value in record.values()]
    failed, lacking = (sum(f'"{w}":' in part for part in parts) for w in ("error", "needs"))
    words = f", {failed} with errors" if failed else ""
    return words + (f", {lacking} that need a GPU" if lacking else "")


def gather(out: Path) -> None:
    """One file of all stages, the unfinished ones too."""
    found = {}
    for number in STAGES:
        for name in (f"stage-{number}.json", f"stage-{number}.part.json"):
            if f"stage-{number}" not in found and (out / name).is_file():
                found[f"stage-{number}"] = json.loads((out / name).read_text())
    write_json(out / "gpu-day.json", found)


def main() -> None:
    """Every stage in turn, a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", default=",".join(map(str, STAGES)))
    parser.add_argument("--toy", action="store_true", help="everything at toy size")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in map(int, arguments.stages.split(",")):
        print(f"{number} {STAGES[number].title}: ", end="", flush=True)
        print(run_stage(number, arguments.out, arguments.toy), flush=True)
        gather(arguments.out)


if __name__ == "__main__":
    main()
