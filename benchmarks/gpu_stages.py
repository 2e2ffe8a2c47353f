"""The stages of gpu_day.py: what each measures, part by part. Run by it as

python benchmarks/gpu_stages.py N DIR [--toy]
"""

import argparse
import importlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlock.media.files import write_json


@dataclass(frozen=True)
class Setting:
    """Where and how large: at full size on a GPU in bfloat16, or a toy anywhere."""

    toy: bool

    @property
    def device(self) -> Any:
        """The GPU where there is one."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def model(self) -> str:
        """Whose architecture most stages run."""
        return "shapes" if self.toy else "wan2.1-vace-1.3b"


@dataclass(frozen=True)
class Part:
    """One measurement: what it gives goes into the stage's JSON."""

    measure: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    cuda: bool = False


@dataclass(frozen=True)
class Stage:
    """`module` has `parts(setting)`: a Part by name."""

    title: str
    module: str
    function: str
    limit_s: int

    def parts(self, setting: Setting) -> dict[str, Part]:
        """Its measurements, in order."""
        return getattr(importlib.import_module(self.module), self.function)(setting)


STAGES = {
    1: Stage("versions, and patch embedding by Conv3d and by linear", "gpu_kernels", "first", 90),
    2: Stage("identities in float32", "gpu_edits", "identities", 150),
    3: Stage("end to end, from a checkpoint and a 1080p file", "gpu_end_to_end", "parts", 450),
    4: Stage("where the source is stored changes no bit", "gpu_edits", "stores", 150),
    5: Stage("memory against the estimate", "gpu_memory", "parts", 540),
    6: Stage("time of each kind of step", "gpu_kernels", "times", 300),
    7: Stage("token sets, and growth from edit to edit", "gpu_edits", "repeats", 120),
}


def measured(part: Part, setting: Setting) -> Any:
    """What the part gives, or what it lacks, or why it failed; the next one runs all the same."""
    if part.cuda and setting.device.type != "cuda":
        return {"needs": "cuda"}
    try:
        return part.measure(setting, *part.arguments)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Run one stage; its file is there when it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, choices=STAGES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    stage, setting = STAGES[arguments.number], Setting(arguments.toy)
    unfinished = arguments.out / f"stage-{arguments.number}.part.json"
    began = time.monotonic()
    record: dict[str, Any] = {
        "stage": stage.title,
        "toy": setting.toy,
        "device": str(setting.device),
    }
    for name, part in stage.parts(setting).items():
        record[name] = measured(part, setting)
        record["seconds"] = round(time.monotonic() - began, 1)
        write_json(unfinished, record)
    write_json(arguments.out / f"stage-{arguments.number}.json", record)
    unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
