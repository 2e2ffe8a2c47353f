"""Cases of kvlock's own files: run.json, suites, and what a benchmark's run leaves."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.faults.case import Case, perform
from benchmarks.faults.models import WRONG, change_field
from benchmarks.faults.outcome import OUT, RIGHT, Outcome, passed, refused
from benchmarks.faults.world import World

LETTERS = "aZ09 é中😀\u2028\u2029\x85\x0b\x00\t\"'\\<>|`$[]\u202e\ud800"


def run_records(world: World, folder: Path, rng: random.Random) -> Case:
    """`edit --from` a run.json with a field of another type: refused, or the same edit."""
    path = folder / "run.json"
    shutil.copy(world.run, path)
    what = _damage(path, rng)

    def judge(outcome: Outcome) -> str:
        if outcome.code == 2:
            return refused(outcome, "run.json")
        flaw = passed(outcome)
        if flaw == RIGHT and (outcome.out / "edited.mp4").read_bytes() != world.baseline:
            given, made = (_job(p) for p in (path, outcome.out / "run.json"))
            flaw = RIGHT if _holds(made, given) else "another edit, in silence"
        return flaw

    return Case(["edit", "--from", str(path), "--out", str(folder / OUT)], judge, what)


def _job(path: Path) -> Any:
    return json.loads(path.read_text())["job"]


def _holds(made: Any, given: Any) -> bool:
    """Whether all that was given was made; what is left out was added by a later version."""
    if isinstance(made, dict) and isinstance(given, dict):
        return all(name in made and _holds(made[name], value) for name, value in given.items())
    return made == given


def _damage(path: Path, rng: random.Random) -> str:
    kind = rng.choice(("field",) * 6 + ("cut", "empty", "other", "noise"))
    if kind == "field":
        return change_field(path, rng)
    data = path.read_bytes()
    content = {
        "cut": data[: rng.randrange(max(1, len(data) - 2))],
        "empty": b"",
        "other": json.dumps(rng.choice(WRONG)).encode(),
        "noise": rng.randbytes(200),
    }[kind]
    path.write_bytes(content)
    return kind


def bench_words(world: World, suite: Path | str, out: Path) -> list[str]:
    """A run of two methods in one step."""
    words = ["bench", "run", str(suite), "--methods", "plain", "--steps", "1", "--device", "cpu"]
    return [*words, "--model", str(world.model), "--out", str(out)]


def suites(world: World, folder: Path, rng: random.Random) -> Case:
    """A manifest with prompts of any letters, or with something wrong in a line."""
    path = folder / "suite.jsonl"
    prompt = "".join(rng.choices(LETTERS, k=rng.randint(1, 12))) + "x"
    item: dict[str, Any] = {"id": "one", "prompt": prompt}
    item |= {"video": str(world.clip), "mask": str(world.mask)}
    path.write_text(json.dumps(item))
    is_bad = rng.random() < 0.8
    what = _damage(path, rng) if is_bad else repr(prompt)

    def judge(outcome: Outcome) -> str:
        if outcome.code == 2:
            return refused(outcome, "suite.jsonl") if is_bad else f"refused: {outcome.complained}"
        flaw = passed(outcome)
        if flaw == RIGHT:
            given = json.loads(path.read_bytes().decode("utf-8-sig"))
            kept = json.loads((outcome.out / "suite.json").read_text())["items"][0]
            flaw = RIGHT if given.items() <= kept.items() else f"the item became {kept}"
        return flaw

    return Case(bench_words(world, path, folder / OUT), judge, what)


DAMAGED = ("result.json", "result.json", "trace.json", "networks.json", "suite.json")


def _damaged_results(world: World, folder: Path, rng: random.Random, name: str) -> tuple[Path, str]:
    out = folder / OUT
    shutil.copytree(world.bench, out)
    job = rng.choice(sorted((out / "results").iterdir()))
    path = out / name if name == "suite.json" else job / name
    if name == "networks.json":
        path.write_text(json.dumps({"scores": {"": {"clip_text": 1.0}}, "by": {"clip_text": "x"}}))
    return path, f"{name}: {_damage(path, rng)}"


def results(world: World, folder: Path, rng: random.Random) -> Case:
    """`bench table` of a folder with a damaged file: it is named, or the damage matters to nothing."""
    path, what = _damaged_results(world, folder, rng, rng.choice(DAMAGED))

    def judge(outcome: Outcome) -> str:
        if outcome.code == 2:
            return refused(outcome, str(path.relative_to(folder)), leaves=True)
        return passed(outcome)

    words = ["bench", "table", str(folder / OUT), "--report-clips", "1"]
    return Case(words, judge, what)


def results_again(world: World, folder: Path, rng: random.Random) -> Case:
    """`bench run` on a damaged result: it is named and made again, the others stay."""
    path, what = _damaged_results(world, folder, rng, "result.json")
    whole = json.loads((world.bench / path.relative_to(folder / OUT)).read_text())

    def judge(outcome: Outcome) -> str:
        if (flaw := passed(outcome)) != RIGHT:
            return flaw
        now = json.loads(path.read_text())
        if (now["scores"], now["job"]) == (whole["scores"], whole["job"]):
            return RIGHT
        table = perform(Case(["bench", "table", str(folder / OUT)], lambda _: RIGHT, ""), folder)
        return refused(table, str(path.relative_to(folder)), leaves=True)  # of another version

    return Case(
        bench_words(world, "shapes-validation", folder / OUT) + ["--limit", "1"], judge, what
    )
