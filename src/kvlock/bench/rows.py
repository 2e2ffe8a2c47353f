"""A table's rows: each metric of a method on every clip and seed, means, and paired differences
between rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvlock.bench.jobs import CEILING, method_order
from kvlock.bench.results import Result, read_results
from kvlock.bench.scores import DIMENSIONS
from kvlock.methods.options import chosen_options, flat

DRAWS = 10_000
FEWEST = 5
ALIKE = ("num_inference_steps", "guidance_scale")  # of each method of one model
Key = tuple[str, int]  # (item, seed)
Values = dict[Key, float]


@dataclass(frozen=True)
class Row:
    """One method on one model: for each metric its value on every clip and seed."""

    model: str
    method: str
    values: dict[str, Values]
    seconds: Values

    @property
    def clips(self) -> int:
        """How many clips it has, each with one seed or more."""
        return len({item for item, _ in self.seconds})


@dataclass(frozen=True)
class Difference:
    """A paired mean difference over `n` clips and its 95 % interval; NaN for the ends where there
    is none.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def read_rows(out: Path) -> list[Row]:
    """Every method that has results under `out`, with and without composite, in the order of
    METHODS.

    Raises ValueError where there is nothing, where one method was run with two configs, or where a
    model's methods differ in steps, guidance at rest, or device: those are no comparison.
    """
    _, results = read_results(out)
    _check_one_config(out, results)
    _check_alike(out, results)
    rows: dict[tuple[str, str], Row] = {}
    for result in results:
        for suffix, scores in result.scores.items():
            name = (result.model, result.method + suffix)
            row = rows.setdefault(name, Row(*name, {}, {}))
            key = (result.item, result.seed)
            row.seconds[key] = result.seconds
            for metric, value in _with_mean(scores).items():
                row.values.setdefault(metric, {})[key] = value
    ordered = sorted(rows.values(), key=lambda r: (r.model, method_order(r.method), r.method))
    for row in ordered:
        _mark_hallucinations(row, rows.get((row.model, CEILING)))
    return ordered


def paired_difference(values: Values, reference: Values, seed: int = 0) -> Difference | None:
    """values - reference on the clips and seeds that both have; None where they share none.

    A clip counts by the mean over its seeds, and the bootstrap draws clips: drawing seeds within
    them, too, would count their noise twice. With fewer than FEWEST clips there is no interval,
    NaN.
    """
    shared = sorted(set(values) & set(reference))
    if not shared:
        return None
    by_item: dict[str, list[float]] = {}
    for item, number in shared:
        by_item.setdefault(item, []).append(values[item, number] - reference[item, number])
    means = np.array([np.mean(group) for group in by_item.values()])
    low = high = float("nan")
    if len(means) >= FEWEST:
        draws = np.random.default_rng(seed).integers(len(means), size=(DRAWS, len(means)))
        low, high = np.percentile(means[draws].mean(axis=1), [2.5, 97.5])
    return Difference(float(means.mean()), float(low), float(high), len(means))


def difference(row: Row, reference: Row | None, metric: str) -> Difference | None:
    """The paired difference of one metric; None where one of the two lacks it."""
    values = row.values.get(metric)
    if not values or reference is None or metric not in reference.values:
        return None
    return paired_difference(values, reference.values[metric])


def reference_of(rows: list[Row], row: Row, name: str) -> Row | None:
    """The row that `row` is compared with: its own model's, or for `vace` that of a model that has
    it.
    """
    found = [r for r in rows if r.method == name and r.model == row.model]
    found += [r for r in rows if r.method == name == "vace"]
    return found[0] if found and found[0] is not row else None


def time_ratio(row: Row, plain: Row | None) -> float:
    """Median over clips and seeds of an edit's seconds over those of plain sampling; NaN where that
    was not run.
    """
    if plain is None or row.method.startswith(CEILING):
        return float("nan")
    shared = sorted(set(row.seconds) & set(plain.seconds))
    ratios = [row.seconds[key] / plain.seconds[key] for key in shared]
    return float(np.median(ratios)) if ratios else float("nan")


def mean_of(values: Values) -> float:
    """The mean over clips, each the mean of its seeds."""
    by_item: dict[str, list[float]] = {}
    for (item, _), value in values.items():
        by_item.setdefault(item, []).append(value)
    return float(np.mean([np.mean(v) for v in by_item.values()]))


def _check_one_config(out: Path, results: list[Result]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for result in results:
        chosen = repr(chosen_options(result.config)) if result.config else ""
        if seen.setdefault((result.model, result.method), chosen) != chosen:
            raise ValueError(
                f"{out} holds {result.method} on {result.model} with two configs; "
                "a table needs one: use two folders"
            )


def _check_alike(out: Path, results: list[Result]) -> None:
    """Every method of a model was run alike; the VAE's ceiling has no config, and does not count."""
    seen: dict[tuple[str, str], Any] = {}
    for result in results:
        if result.config:
            options = flat(result.config)
            how = {name: options[name] for name in ALIKE} | {"device": result.device}
            for name, value in how.items():
                if seen.setdefault((result.model, name), value) != value:
                    said = f"{out} holds {result.model} with {name} {value} and another"
                    raise ValueError(f"{said}; use two folders")


def _with_mean(scores: dict[str, float]) -> dict[str, float]:
    if not all(name in scores for name in DIMENSIONS):
        return scores
    return scores | {"vbench_mean": float(np.mean([scores[name] for name in DIMENSIONS]))}


def _mark_hallucinations(row: Row, ceiling: Row | None) -> None:
    """`hallucinated`: farther from every valid mode than the VAE puts any true edit of the same
    suite.
    """
    distances = ceiling.values.get("mode_distance") if ceiling else None
    if distances:
        threshold, own = max(distances.values()), row.values.get("mode_distance", {})
        row.values["hallucinated"] = {key: float(value > threshold) for key, value in own.items()}
