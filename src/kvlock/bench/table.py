"""`kvlock bench table`: means, and paired differences with a bootstrap interval over clips and seeds."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvlock.bench.jobs import Workplace, chosen_fields
from kvlock.bench.runner import CEILING
from kvlock.bench.scores import DIMENSIONS, METRICS, Metric
from kvlock.methods.table import COMPOSITE, METHODS, config_class

DRAWS = 10_000
FEWEST = 5
SHOWN = (
    "psnr_background",
    "ssim_background",
    "psnr_ring",
    "flicker_background",
    "psnr_inside",
    "ssim_inside",
    "right_colour",
    "right_shape",
    "right_edit",
    "mode_consistency",
    "hallucinated",
    "lpips_background",
    "clip_text",
    "clip_text_region",
    *DIMENSIONS,
    "vbench_mean",
)
Key = tuple[str, int]  # (item, seed)
Values = dict[Key, float]


@dataclass(frozen=True)
class Row:
    """One method on one model: for each metric its value on every clip and seed."""

    model: str
    method: str
    values: dict[str, Values]
    seconds: Values


@dataclass(frozen=True)
class Difference:
    """A paired mean difference over `n` clips and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


def read_rows(out: Path) -> list[Row]:
    """Every method that has results under `out`, with and without composite, in the order of METHODS.

    Raises ValueError where there is nothing, where one method was run with two configs, or where a model's methods
    differ in steps, guidance at rest, or device: those are no comparison.
    """
    results = Workplace(out).read() if (out / "results").is_dir() else []
    if not results:
        raise ValueError(f"{out} holds no results; run kvlock bench run first")
    rows: dict[tuple[str, str], Row] = {}
    seen: dict[tuple[str, str], str] = {}
    alike: dict[tuple[str, str], Any] = {}
    for result in results:
        job = result["job"]
        chosen = repr(chosen_fields(config_class(job["method"])(**job["config"]))) if job["config"] else ""
        if seen.setdefault((job["model"], job["method"]), chosen) != chosen:
            raise ValueError(
                f"{out} holds {job['method']} on {job['model']} with two configs; a table needs one: use two folders"
            )
        if job["config"]:
            how = {n: job["config"][n] for n in ("num_inference_steps", "guidance_scale")} | {
                "device": result["device"]
            }
            for name, value in how.items():
                if alike.setdefault((job["model"], name), value) != value:
                    raise ValueError(f"{out} holds {job['model']} with {name} {value} and another; use two folders")
        for suffix, scores in result["scores"].items():
            if all(name in scores for name in DIMENSIONS):
                scores["vbench_mean"] = float(np.mean([scores[name] for name in DIMENSIONS]))
            name = (job["model"], job["method"] + suffix)
            row = rows.setdefault(name, Row(*name, {}, {}))
            key = (job["item"], job["seed"])
            row.seconds[key] = result["seconds"]
            for metric, value in scores.items():
                row.values.setdefault(metric, {})[key] = value
    order = [CEILING, "vace", *METHODS]
    ordered = sorted(rows.values(), key=lambda r: (r.model, order.index(r.method.removesuffix(COMPOSITE)), r.method))
    for row in ordered:
        _mark_hallucinations(row, rows.get((row.model, CEILING)))
    return ordered


def _mark_hallucinations(row: Row, ceiling: Row | None) -> None:
    """`hallucinated`: farther from every valid mode than the VAE puts any true edit of the same suite."""
    distances = ceiling.values.get("mode_distance") if ceiling else None
    if distances:
        threshold = max(distances.values())
        row.values["hallucinated"] = {
            key: float(value > threshold) for key, value in row.values.get("mode_distance", {}).items()
        }


def paired_difference(values: Values, reference: Values, seed: int = 0) -> Difference | None:
    """values - reference on the clips and seeds that both have; None where they share none.

    A clip counts by the mean over its seeds, and the bootstrap draws clips: drawing seeds within them, too, would
    count their noise twice. With fewer than FEWEST clips there is no interval, NaN.
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


def write_tables(out: Path, rows: list[Row], against: str = "") -> str:
    """Write `table.csv` and `table.md` under `out`; returns the Markdown.

    `against` is another method that the Markdown gives paired differences to. Raises ValueError where it was not run.
    """
    suite = json.loads((out / "suite.json").read_text())["name"]
    if against and against not in {r.method for r in rows}:
        raise ValueError(f"--against {against}: {out} has no such row; expected one of {', '.join(_methods(rows))}")
    text = markdown(rows, suite, tuple(dict.fromkeys(filter(None, ("plain", "vace", against)))))
    (out / "table.csv").write_text(csv_lines(rows, suite))
    (out / "table.md").write_text(text, encoding="utf-8")
    return text


def csv_lines(rows: list[Row], suite: str) -> str:
    """One line a method and metric, with its paired differences to `plain` and to `vace`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["suite", "model", "method", "n", "metric", "mean", "diff_plain", "low", "high"]
    writer.writerow([*header, "diff_vace", "low_vace", "high_vace", "time_plain"])
    for row in rows:
        plain, vace = _reference(rows, row, "plain"), _reference(rows, row, "vace")
        ratio = time_ratio(row, plain)
        for metric in METRICS:
            values = row.values.get(metric.name)
            if values:
                cells = [suite, row.model, row.method, len(values), metric.name, _number(float(mean_of(values)))]
                for reference in (plain, vace):
                    cells += _difference_cells(values, reference, metric)
                writer.writerow([*cells, _number(ratio)])
    return file.getvalue()


def _methods(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(r.method for r in rows))


def markdown(rows: list[Row], suite: str, references: tuple[str, ...] = ("plain", "vace")) -> str:
    """For each model a table of means and, for each reference, one of paired differences."""
    parts = []
    for model in dict.fromkeys(r.model for r in rows):
        own = [r for r in rows if r.model == model]
        metrics = [m for m in METRICS if m.name in SHOWN and any(m.name in r.values for r in own)]
        n, seeds = len({k[0] for r in own for k in r.seconds}), len({k[1] for r in own for k in r.seconds})
        parts.append(f"## {suite}, {model}: {n} clips, {seeds} seed{'s' * (seeds > 1)}\n")
        header = ["method", "clips", *(m.heading for m in metrics), "time / plain"]
        lines = [
            [
                r.method,
                str(len({k[0] for k in r.seconds})),
                *(_cell(r, m) for m in metrics),
                _ratio(r, _reference(rows, r, "plain")),
            ]
            for r in own
        ]
        parts.append(_grid(header, lines))
        for name in references:
            body = [_difference_line(r, _reference(rows, r, name), metrics) for r in own]
            if any(any(line[1:]) for line in body):
                title = f"Paired difference to {name}, mean [95 % interval]; * where the interval leaves out 0\n"
                parts.append(title + "\n" + _grid(["method", *(m.heading for m in metrics)], body))
    return "\n".join(parts)


def _reference(rows: list[Row], row: Row, name: str) -> Row | None:
    """The row that `row` is compared with: its own model's, or for `vace` that of a model that has it."""
    found = [r for r in rows if r.method == name and r.model == row.model]
    found += [r for r in rows if r.method == name == "vace"]
    return found[0] if found and found[0] is not row else None


def time_ratio(row: Row, plain: Row | None) -> float:
    """Median over clips and seeds of seconds an edit over those of plain sampling; NaN where it was not run."""
    shared = set(row.seconds) & set(plain.seconds) if plain and not row.method.startswith(CEILING) else set()
    if not plain or not shared:
        return float("nan")
    return float(np.median([row.seconds[key] / plain.seconds[key] for key in sorted(shared)]))


def mean_of(values: Values) -> float:
    """The mean over clips, each the mean of its seeds."""
    by_item: dict[str, list[float]] = {}
    for (item, _), value in values.items():
        by_item.setdefault(item, []).append(value)
    return float(np.mean([np.mean(v) for v in by_item.values()]))


def _cell(row: Row, metric: Metric) -> str:
    values = row.values.get(metric.name)
    return f"{mean_of(values):.{metric.digits}f}" if values else ""


def _ratio(row: Row, plain: Row | None) -> str:
    ratio = time_ratio(row, plain)
    return "1.00" if row.method == "plain" else "" if np.isnan(ratio) else f"{ratio:.2f}"


def _difference_line(row: Row, reference: Row | None, metrics: list[Metric]) -> list[str]:
    cells = [row.method]
    for metric in metrics:
        difference = _difference(row.values.get(metric.name), reference, metric)
        if difference is None:
            cells.append("")
            continue
        d = metric.digits
        star = "*" if difference.low > 0 or difference.high < 0 else ""
        interval = "" if np.isnan(difference.low) else f" [{difference.low:+.{d}f}, {difference.high:+.{d}f}]"
        cells.append(f"{difference.mean:+.{d}f}{star}{interval}")
    return cells


def _difference_cells(values: Values, reference: Row | None, metric: Metric) -> list[str]:
    difference = _difference(values, reference, metric)
    return [_number(x) for x in (difference.mean, difference.low, difference.high)] if difference else [""] * 3


def _difference(values: Values | None, reference: Row | None, metric: Metric) -> Difference | None:
    if not values or reference is None or metric.name not in reference.values:
        return None
    return paired_difference(values, reference.values[metric.name])


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _grid(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
