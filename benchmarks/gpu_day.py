"""A GPU day: half an hour on one GPU, with random weights.

    python benchmarks/gpu_day.py --out DIR [--stages 1,2,...] [--toy]

Seven stages (gpu_stages.py), each in a process of its own with a time limit. A stage that ends
writes DIR/stage-N.json, and one that is there is skipped, so that the same command goes on after a
cut; what a stage that did not end had measured stands in DIR/stage-N.part.json, what it said in
DIR/stage-N.log. All together is DIR/gpu-day.json. `--toy` runs everything at toy size, on the CPU
too. Looks cannot be judged with random weights.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from gpu_stages import STAGES
from kvlock.media.files import write_json

BENCHMARKS = Path(__file__).parent


def run_stage(number: int, out: Path, toy: bool) -> str:
    """Run it, unless it is there; how that went, in a line."""
    stage = STAGES[number]
    done, log = out / f"stage-{number}.json", out / f"stage-{number}.log"
    if done.is_file():
        return "is there"
    command = [sys.executable, str(BENCHMARKS / "gpu_stages.py"), str(number), str(out)]
    began = time.monotonic()
    with log.open("w") as said:
        try:
            code = subprocess.run(
                command + ["--toy"] * toy, stdout=said, stderr=said, timeout=stage.limit_s
            ).returncode
        except subprocess.TimeoutExpired:
            return f"was cut off after {stage.limit_s} s"
    seconds = f"{time.monotonic() - began:.0f} s"
    if code or not done.is_file():
        return f"failed after {seconds}: {log}"
    return f"{seconds}{_in_short(json.loads(done.read_text()))}"


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
