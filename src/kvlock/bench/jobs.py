"""A run's jobs: each a clip, a method and a seed, in batches that run in one forward."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from kvlock.backbones.checkpoints import family_of
from kvlock.bench.suite import Item, Suite
from kvlock.editing.clips import default_config
from kvlock.methods.catalogue import (
    COMPOSITE,
    METHODS,
    check_model,
    usable_options,
)
from kvlock.methods.options import MethodConfig, chosen_options

# The truth, or where it is not known the source, through the VAE: no edit can be better.
CEILING = "vae-ceiling"
BATCH = 8


@dataclass(frozen=True)
class Job:
    """One clip edited by one method with one seed. `method` has no `+composite`: both are scored of
    one edit.

    `config` is None for the VAE's ceiling. `inputs` holds whatever else the result depends on: the
    item itself, dtype, weights.
    """

    item: str
    model: str
    method: str
    seed: int
    config: MethodConfig | None
    inputs: str = ""

    @property
    def id(self) -> str:
        """Stable and readable: the same arguments give the same name, whatever options are added
        later.
        """
        settings = json.dumps(chosen_options(self.config) if self.config else {}, sort_keys=True)
        text = f"{self.model}\n{self.inputs}\n{settings}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        model = "".join(c if _is_plain(c) else "-" for c in self.model)[-40:]
        return f"{self.item}.{model}.{self.method}.s{self.seed}.{digest}"


def plan_jobs(
    suite: Suite,
    model: str,
    methods: tuple[str, ...],
    seeds: range,
    overrides: dict[str, Any],
    inputs: str = "",
) -> list[list[Job]]:
    """Batches of jobs that can run together; all methods of a few clips before the next few.

    A run that is stopped has so every method on the same clips. `inputs` keeps weights and dtypes
    apart. Raises ValueError for an unknown method, or a field that none of the methods takes.
    """
    bare = tuple(dict.fromkeys(m.removesuffix(COMPOSITE) for m in methods))
    edits = [m for m in bare if m != CEILING]
    _check(model, edits, overrides)
    configs: dict[str, MethodConfig | None] = dict.fromkeys(bare)
    configs |= {m: config_for(model, m, overrides) for m in edits}
    described = {i.id: json.dumps(asdict(i), sort_keys=True) + inputs for i in suite.items}
    return [
        [Job(item.id, model, method, seed, configs[method], described[item.id]) for item in group]
        for group in batches_of(suite.items)
        for seed in seeds
        for method in bare
    ]


def batches_of(items: tuple[Item, ...]) -> list[list[Item]]:
    """What is edited together: scenes, which have one size, by BATCH; clips from files alone."""
    scenes = [i for i in items if i.scene is not None]
    clips = [i for i in items if i.scene is None]
    groups = [scenes[i : i + BATCH] for i in range(0, len(scenes), BATCH)]
    return groups + [[clip] for clip in clips]


def method_order(method: str) -> int:
    """Where a method stands among a table's rows, with or without `+composite`."""
    return [CEILING, "vace", *METHODS].index(method.removesuffix(COMPOSITE))


def config_for(model: str, method: str, overrides: dict[str, Any]) -> MethodConfig:
    """The method's config with those of `overrides`, options by name, that do something in it.

    Raises ValueError for an unknown method, or a value out of its range.
    """
    return default_config(model, method, **usable_options(method, overrides))


def _check(model: str, edits: list[str], overrides: dict[str, Any]) -> None:
    control = family_of(model).takes_control
    for method in edits:
        check_model(method, control)
    for name in overrides:
        if not any(name in usable_options(m, overrides) for m in edits):
            said = f"{name} is set by each of {', '.join(edits)} itself, or is not theirs"
            raise ValueError(f"{said}, or does nothing there; leave it out")


def _is_plain(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter in "._-")
