"""Which way of running an edit a device has room for, and what would fit where none does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from kvlock.backbones.known_models import KNOWN_MODELS, known_model
from kvlock.core.config import KVLockConfig
from kvlock.cost.estimate import Estimator, Place, device_bytes, gigabytes
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig

SMALL_BATCH_BYTES = 1e9
RANKS = {"--dtype bfloat16": 5, "--tile-vae": 10, "--offload group": 100}
OFFLOADS = ("none", "model", "group")  # from the fastest to the smallest


def choose_execution(
    estimator: Estimator, config: MethodConfig, place: Place, given: Mapping[str, Any]
) -> Execution:
    """The fastest way that fits, of those that agree with what is `given`, by option.

    Branches run one by one where a batch would need a gigabyte more than the weights. Parts of the
    model, then the source's keys and values, wait in the host's memory where the device has no
    room. Group offload, which is slow, is not chosen. Where nothing fits, what needs least of these.
    """
    execution = Execution(**given)
    if isinstance(config, KVLockConfig) and "branches" not in given:
        batch = estimator.cost(place.foreground, config, execution, place.variants)
        if batch.peak_bytes > SMALL_BATCH_BYTES:
            execution = replace(execution, branches="sequential")
    ways = [execution]
    if place.device.type != "cpu" and "offload" not in given:
        ways.append(replace(execution, offload="model"))
    if "source_store" not in given and _may_hold_on_host(config, place):
        ways += [replace(way, source_store="host") for way in ways]
    return next((way for way in ways[:-1] if _fits(estimator, config, way, place)), ways[-1])


def _fits(estimator: Estimator, config: MethodConfig, execution: Execution, place: Place) -> bool:
    there = place.bytes
    least = estimator.least(execution, place) <= there  # saves counting what cannot fit
    return least and estimator.need(config, execution, place) <= there


def check_frames(size: int) -> None:
    """Raise ValueError where the host's memory has no room for so many bytes of frames."""
    free = device_bytes(torch.device("cpu"))
    if size > free:
        raise ValueError(
            f"the clip's frames alone need about {gigabytes(size)} of memory, and {gigabytes(free)} "
            "are free; give a shorter or smaller clip, or fewer variants at a time "
            "(--no-memory-check goes on regardless)"
        )


def check_memory(
    estimator: Estimator, config: MethodConfig, execution: Execution, place: Place
) -> int:
    """Bytes that the edit needs. Raises ValueError, with what would fit, where there are fewer."""
    if _fits(estimator, config, execution, place):
        return estimator.need(config, execution, place)
    there, least = place.bytes, estimator.least(execution, place)
    amount = f"at least {gigabytes(least)}"
    if least <= there:
        amount = f"about {gigabytes(estimator.need(config, execution, place))}"
    raise ValueError(
        f"the edit needs {amount} on {place.device}, which has {gigabytes(there)}; "
        f"{_advice(estimator, config, execution, place)} (--no-memory-check goes on regardless)"
    )


@dataclass(frozen=True)
class _Way:
    """Another way to run an edit: by which flags, and besides with what else."""

    flags: tuple[str, ...]
    estimator: Estimator
    execution: Execution
    place: Place
    besides: str = ""

    def fits(self, config: MethodConfig) -> bool:
        return _fits(self.estimator, config, self.execution, self.place)

    def sentence(self, config: MethodConfig) -> str:
        words = " and ".join(filter(None, (" ".join(self.flags), self.besides)))
        slow = " (slow)" if "--offload group" in self.flags else ""
        need = self.estimator.need(config, self.execution, self.place)
        return f"{words}{slow}, which needs {gigabytes(need)}"


def _advice(estimator: Estimator, config: MethodConfig, execution: Execution, place: Place) -> str:
    """What would fit, by what it costs: time first, then precision and pixels, then what was asked."""
    own = _Way((), estimator, execution, place)
    ways = [w for start in (own, *_smaller_dtype(own)) for w in _executions(start, config)]
    ways.sort(key=_rank)
    least = ways[-1]
    ways += [*_fewer_variants(least), *_shorter(least)]
    found = next((way for way in ways if way.fits(config)), None)
    remedies = [found] if found else []
    if not found or "--offload group" in found.flags:
        smaller = (way for way in _smaller_models(own) if way.fits(config))
        remedies += [*smaller][:1]
    if not remedies:
        return "no setting of kvlock makes it fit there"
    return f"try {', or '.join(way.sentence(config) for way in remedies)}"


def _rank(way: _Way) -> int:
    return sum(RANKS.get(word, 1) for word in way.flags)


def _executions(way: _Way, config: MethodConfig) -> list[_Way]:
    """All ways to run it that take no more than what was asked."""
    asked, on_cpu = way.execution, way.place.device.type == "cpu"
    stronger = OFFLOADS[OFFLOADS.index(asked.offload) :]
    offloads = ("none",) if on_cpu else stronger
    branches = dict.fromkeys((asked.branches, "sequential"))
    branches = branches if isinstance(config, KVLockConfig) else [asked.branches]
    stores = ("device", "host") if _may_hold_on_host(config, way.place) else (asked.source_store,)
    stores = ("host",) if asked.source_store == "host" else stores
    tiles = dict.fromkeys((asked.tile_vae, True))
    found = []
    for offload, tiled, store, branch in product(offloads, tiles, stores, branches):
        execution = replace(
            asked, offload=offload, tile_vae=tiled, source_store=store, branches=branch
        )
        found.append(
            replace(way, flags=(*way.flags, *_flags(asked, execution)), execution=execution)
        )
    return found


def _flags(asked: Execution, execution: Execution) -> list[str]:
    """What differs, as the command line has it."""
    flags = []
    for name in ("branches", "source_store", "tile_vae", "offload"):
        value = getattr(execution, name)
        if value != getattr(asked, name):
            flag = f"--{name.replace('_', '-')}"
            flags.append(flag if value is True else f"{flag} {value}")
    return flags


def _smaller_dtype(way: _Way) -> list[_Way]:
    if way.estimator.dtype != torch.float32:
        return []
    half = Estimator(way.estimator.model, torch.bfloat16)
    return [replace(way, flags=("--dtype bfloat16",), estimator=half)]


def _fewer_variants(way: _Way) -> Iterator[_Way]:
    for count in reversed(range(1, way.place.variants)):
        words = f"{count} variants at a time" if count > 1 else "one variant at a time"
        yield replace(way, besides=words, place=replace(way.place, variants=count))


def _shorter(way: _Way) -> Iterator[_Way]:
    """Half the frames, a quarter, ... with one variant."""
    place, stride = replace(way.place, variants=1), way.estimator.backbone.vae_stride[0]
    frames, height, width = place.video_size
    while frames > stride:
        latents = (frames - 1) // stride // 2 + 1
        frames = (latents - 1) * stride + 1
        shorter = replace(
            place, video_size=(frames, height, width), foreground=place.foreground[:latents]
        )
        if shorter.foreground.any():
            yield replace(way, besides=f"a clip of {frames} frames", place=shorter)


def _smaller_models(way: _Way) -> Iterator[_Way]:
    """Of the same family, the largest first."""
    own = known_model(way.estimator.model)
    size = own.parameters if own else float("inf")
    family = way.estimator.backbone.spec.name
    known = [m for m in KNOWN_MODELS if m.family == family and m.parameters < size]
    for model in sorted(known, key=lambda m: -m.parameters):
        estimator = Estimator(model.name, way.estimator.dtype)
        yield replace(way, flags=(f"--model {model.name}",), estimator=estimator)


def _may_hold_on_host(config: MethodConfig, place: Place) -> bool:
    """Whether the source's keys and values are held from step to step."""
    drop = config.drop if isinstance(config, KVLockConfig) else None
    return place.device.type != "cpu" and drop is not None and drop.refresh_steps(config) > 1  # type: ignore
