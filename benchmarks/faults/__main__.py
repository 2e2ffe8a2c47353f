"""Try thousands of broken inputs, kills and faults on this machine; print what ended right.

python -m benchmarks.faults --seed 0                  # all of them, on all cores
python -m benchmarks.faults --seed 0 --case masks/17  # one again; its folder stays
"""

import argparse
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy models wait for threads more than they compute

from benchmarks.faults.classes import CLASSES, Verdict, attempt, ready_world


def main() -> None:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of every class")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--case", default="", help="a class, or CLASS/NUMBER")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kvlock-faults-"))
    name, _, number = given.case.partition("/")
    began = time.monotonic()
    world = ready_world(root)
    if number:
        verdict = attempt(world, root, given.seed, name, int(number))
        print(f"{verdict.what}\n{verdict.command}\n{verdict.flaw or 'right'}; its files: {root}")
        return
    counts = {n: max(1, round(c * given.share)) for n, (_, c) in CLASSES.items() if name in ("", n)}
    cases = [(n, i) for n, count in counts.items() for i in range(count)]
    trying = partial(attempt, world, root, given.seed)
    verdicts = []
    with ProcessPoolExecutor(given.workers, get_context("fork")) as pool:
        for done in as_completed([pool.submit(trying, *case) for case in cases]):
            verdicts.append(done.result())
            print(f"\r{len(verdicts)} of {len(cases)}", end="", flush=True)
    report(verdicts, counts, given.seed, time.monotonic() - began)
    shutil.rmtree(root)


def report(verdicts: list[Verdict], counts: dict[str, int], seed: int, seconds: float) -> None:
    """The table, and each wrong case with the command that shows it."""
    print("\n\n| class | tried | right |\n|---|---|---|")
    for name, count in counts.items():
        right = sum(v.kind == name and not v.flaw for v in verdicts)
        print(f"| {name} | {count} | {right} |")
    wrong = sorted((v for v in verdicts if v.flaw), key=lambda v: (v.kind, v.number))
    print(f"| all | {len(verdicts)} | {len(verdicts) - len(wrong)} |")
    print(f"\nseed {seed}, {seconds / 60:.1f} minutes")
    for v in wrong:
        print(f"\n{v.kind}/{v.number}, {v.what}\n  {v.flaw}\n  {v.command}")
        print(f"  python -m benchmarks.faults --seed {seed} --case '{v.kind}/{v.number}'")


if __name__ == "__main__":
    main()
