"""What the benchmarks have in common: prompts, names, and sentences for what is missing."""

import json
import re
from pathlib import Path
from typing import Any

PROMPTS = ("prompt", "source_prompt", "negative_prompt")
Prompts = dict[str, dict[str, str]]  # of a clip's name, of one of PROMPTS


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
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f'{path}: expected {{"clip": "prompt", ...}}')
    prompts = {n: {"prompt": v} if isinstance(v, str) else v for n, v in record.items()}
    for name, value in prompts.items():
        if not isinstance(value, dict) or "prompt" not in value or set(value) - set(PROMPTS):
            expected = f"a prompt, or an object with {', '.join(PROMPTS)}"
            raise ValueError(f"{path}: {name} is {value!r}; expected {expected}")
    return prompts


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ValueError for another file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from error
