"""Cases of model folders, broken in every way."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.faults.case import Case
from benchmarks.faults.outcome import RIGHT, Outcome, passed, refused
from benchmarks.faults.world import World, edit_words, linked_copy
from safetensors.torch import load_file, save_file

WRONG = ("text", "", -1, 1.5, True, None, [], [None], {}, {"x": [1]}, 10**30)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"


def model_folders(world: World, folder: Path, rng: random.Random) -> Case:
    """One file of the model missing, cut, another's, or holding what is not its own."""
    names = [str(f.relative_to(world.model)) for f in sorted(world.model.rglob("*")) if f.is_file()]
    name = rng.choice(names)
    file = linked_copy(world.model, folder / "model", name)
    breaks = TENSORS if name.endswith(".safetensors") else FIELDS
    how = rng.choice([*BYTES, *breaks, *breaks])
    detail = (BYTES | breaks)[how](file, rng)

    def judge(outcome: Outcome) -> str:
        if outcome.code == 2:
            return refused(outcome, str(folder / "model"))
        flaw = passed(outcome)
        if flaw == RIGHT and outcome.out.read_bytes() != world.baseline:
            flaw = "another edit than the whole model's, in silence"
        return flaw

    words = edit_words(world, folder, model=folder / "model")
    return Case(words, judge, f"{name}: {how} {detail or ''}")


def _cut(file: Path, rng: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def _flipped(file: Path, rng: random.Random) -> None:
    """In the beginning, where the structure is."""
    data = bytearray(file.read_bytes())
    data[rng.randrange(min(len(data), 2000))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _a_folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


BYTES: dict[str, Callable[[Path, random.Random], Any]] = {
    "missing": lambda f, _: f.unlink(),
    "empty": lambda f, _: f.write_bytes(b"") and None,
    "cut": _cut,
    "a git-lfs pointer": lambda f, _: f.write_bytes(LFS) and None,
    "a page": lambda f, _: f.write_bytes(PAGE) and None,
    "noise": lambda f, r: f.write_bytes(r.randbytes(3000)) and None,
    "a folder": _a_folder,
}


def spots(record: Any, before: tuple = ()) -> list[tuple]:
    """Where every value stands in JSON."""
    pairs = record.items() if isinstance(record, dict) else enumerate(record)
    found = []
    for name, value in pairs:
        found.append((*before, name))
        if isinstance(value, (dict, list)):
            found += spots(value, (*before, name))
    return found


def change_field(file: Path, rng: random.Random, wrong: tuple = WRONG) -> str:
    """Set a value of a JSON file to one of another type, or leave it out; says which."""
    record = json.loads(file.read_text())
    if not spots(record):
        file.write_text(json.dumps([rng.choice(wrong)]))
        return "something in an empty list"
    *parents, last = spot = rng.choice(spots(record))
    inner = record
    for name in parents:
        inner = inner[name]
    if rng.random() < 0.2:
        del inner[last]
        file.write_text(json.dumps(record))
        return f"{spot} left out"
    value = rng.choice([w for w in wrong if type(w) is not type(inner[last])])
    inner[last] = value
    file.write_text(json.dumps(record))
    return f"{spot} = {value!r}"


FIELDS: dict[str, Callable[[Path, random.Random], Any]] = {
    "a field": lambda f, r: change_field(f, r),
    "another JSON": lambda f, r: f.write_text(json.dumps(r.choice(WRONG))) and None,
}


def _tensors(file: Path, rng: random.Random, change: Callable[[dict, str], Any]) -> str:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    name = rng.choice(sorted(tensors))
    change(tensors, name)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    return name


def _put(tensors: dict, name: str, number: float) -> None:
    tensors[name].view(-1)[-1] = number


TENSORS: dict[str, Callable[[Path, random.Random], Any]] = {
    "a header's bit": _flipped,
    "a tensor missing": lambda f, r: _tensors(f, r, lambda t, n: t.pop(n)),
    "a tensor besides": lambda f, r: _tensors(f, r, lambda t, n: t.update(x=torch.ones(2))),
    "a tensor renamed": lambda f, r: _tensors(f, r, lambda t, n: t.update(y=t.pop(n))),
    "another shape": lambda f, r: _tensors(f, r, lambda t, n: t.update({n: torch.ones(7, 3)})),
    "NaN": lambda f, r: _tensors(f, r, lambda t, n: _put(t, n, float("nan"))),
    "infinity": lambda f, r: _tensors(f, r, lambda t, n: _put(t, n, float("inf"))),
}
