"""What the benchmarks have in common: prompts, names, and sentences for what is missing."""

import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from kvlock.contract.records import read_json

PROMPTS = ("prompt", "source_prompt", "negative_prompt")
Prompts = dict[str, dict[str, str]]  # of a clip's name, of one of PROMPTS


class _Texts(TypedDict):
    prompt: str
    source_prompt: NotRequired[str]
    negative_prompt: NotRequired[str]


def subfolder(root: Path, name: str) -> Path:
    """The folder `name` under `root`. Raises ValueError where there is none."""
    if not (root / name).is_dir():
        raise ValueError(
            f"{root} has no folder {name}; give the folder that the benchmark was unpacked to"
        )
    return root / name


def item_id(name: str) -> str:
    """`name` with what an id may not hold replaced by a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]


def prompts_of(prompts: Prompts, name: str) -> dict[str, Any]:
    """The prompts of one clip. Raises ValueError where there are none."""
    if name not in prompts:
        raise ValueError(
            f"no prompt for {name}; this benchmark has none on disk, "
            "give them with --prompts FILE.json"
        )
    return prompts[name]


def read_prompts(path: Path) -> Prompts:
    """Prompts by clip, from JSON. Raises ValueError for another form."""
    expected = f"a prompt for each clip, or an object with {', '.join(PROMPTS)}"
    record = read_json(path, dict[str, str | _Texts], f"expected {expected}")
    prompts = {n: {"prompt": v} if isinstance(v, str) else v for n, v in record.items()}
    for name, value in prompts.items():
        if set(value) - set(PROMPTS):
            raise ValueError(f"{path}: {name} is {value!r}; expected {expected}")
    return prompts
