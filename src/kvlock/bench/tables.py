"""`kvlock bench table`: a short table for the terminal, the whole one as Markdown and CSV."""

import csv
import html
import io
import math
import re
import textwrap
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from kvlock.bench.results import read_suite_record
from kvlock.bench.rows import Row, difference, mean_of, reference_of, time_ratio
from kvlock.bench.scores import DIMENSIONS, METRICS, Metric
from kvlock.media.files import write_text
from kvlock.methods.catalogue import COMPOSITE

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
    "temporal",
    "mode_consistency",
    "hallucinated",
    "lpips_background",
    "clip_text",
    "clip_text_region",
    *DIMENSIONS,
    "vbench_mean",
)
SHORT = {
    "psnr_background": "PSNR background",
    "psnr_inside": "PSNR inside",
    "right_edit": "right edit",
    "lpips_background": "LPIPS background",
    "clip_text_region": "CLIP region",
    "ssim_background": "SSIM background",
    "flicker_background": "flicker",
}  # the terminal's metrics under short names: the first three that were measured
WIDTH = 100  # columns of the terminal's table at most


def write_tables(out: Path, rows: list[Row], against: str = "") -> str:
    """Write `table.csv` and `table.md` under `out`; returns the Markdown.

    `against` is another method that the Markdown gives paired differences to. Raises ValueError
    where it was not run.
    """
    methods = list(dict.fromkeys(r.method for r in rows))
    if against and against not in methods:
        expected = ", ".join(methods)
        raise ValueError(f"--against {against}: {out} has no such row; expected one of {expected}")
    suite = read_suite_record(out).name
    text = markdown(rows, suite, tuple(dict.fromkeys(filter(None, ("plain", "vace", against)))))
    write_text(out / "table.csv", csv_lines(rows, suite))
    write_text(out / "table.md", text)
    return text


def print_tables(rows: list[Row], against: str = "") -> None:
    """For each model the metrics that matter most, with paired differences to `against`, or to
    plain sampling.

    At most 100 columns wide. The rows with `+composite` stand in the written tables only.
    """
    console, reference = Console(markup=False, emoji=False), against or "plain"
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for model in dict.fromkeys(r.model for r in rows):
        own = [r for r in rows if r.model == model]
        console.print(_title(own), "", _short_table(rows, own, reference), "", sep="\n")
    console.print(
        f"Δ: paired mean difference to {reference}; * where its 95 % interval leaves out 0"
    )


def _short_table(rows: list[Row], own: list[Row], reference: str) -> Table:
    shown = [r for r in own if not r.method.endswith(COMPOSITE) or r.method == reference]
    measured = [m for m in METRICS if m.name in SHORT and any(m.name in r.values for r in shown)]
    metrics = sorted(measured, key=lambda m: list(SHORT).index(m.name))[:3]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    headings = ["clips"]
    for metric in metrics:
        headings += [f"{SHORT[metric.name]} {metric.arrow}".strip(), "Δ"]
    for heading in [*headings, "time / plain"]:
        narrow = "\n".join(textwrap.wrap(heading, 9, break_long_words=False))
        table.add_column(narrow, justify="right", no_wrap=True)
    for row in shown:
        other = reference_of(rows, row, reference)
        cells = [row.method, str(row.clips)]
        for metric in metrics:
            cells += [_mean(row, metric), _difference(row, other, metric)]
        table.add_row(*cells, _ratio(row, reference_of(rows, row, "plain")))
    return table


def csv_lines(rows: list[Row], suite: str) -> str:
    """One line a method and metric, with its paired differences to `plain` and to `vace`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["suite", "model", "method", "n", "metric", "mean", "diff_plain", "low", "high"]
    writer.writerow([*header, "diff_vace", "low_vace", "high_vace", "time_plain"])
    for row in rows:
        plain, vace = reference_of(rows, row, "plain"), reference_of(rows, row, "vace")
        ratio = time_ratio(row, plain)
        for metric in METRICS:
            values = row.values.get(metric.name)
            if values:
                cells = [suite, row.model, row.method, len(values), metric.name]
                cells.append(_number(mean_of(values)))
                for reference in (plain, vace):
                    cells += _difference_cells(row, reference, metric)
                writer.writerow([*cells, _number(ratio)])
    return file.getvalue()


def markdown(rows: list[Row], suite: str, references: tuple[str, ...] = ("plain", "vace")) -> str:
    """For each model a table of means and, for each reference, one of paired differences."""
    parts = []
    for model in dict.fromkeys(r.model for r in rows):
        own = [r for r in rows if r.model == model]
        metrics = [m for m in METRICS if m.name in SHOWN and any(m.name in r.values for r in own)]
        parts.append(f"## {_plain(suite)}, {_plain(_title(own))}\n")
        parts.append(_means(rows, own, metrics))
        for name in references:
            body = [_difference_line(r, reference_of(rows, r, name), metrics) for r in own]
            if any(any(line[1:]) for line in body):
                title = f"Paired difference to {name}, mean [95 % interval]; "
                title += "* where the interval leaves out 0\n"
                header = ["method", *(m.heading for m in metrics)]
                parts.append(title + "\n" + _grid(header, body))
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Text that means nothing to Markdown, nor to the HTML that Markdown may hold."""
    return re.sub(r"([\\`|<>\[\]*_])", r"\\\1", html.escape(text, quote=False))


def _title(own: list[Row]) -> str:
    """Of one model's rows."""
    clips, seeds = ({key[i] for r in own for key in r.seconds} for i in (0, 1))
    return f"{own[0].model}: {len(clips)} clips, {len(seeds)} seed{'s' * (len(seeds) > 1)}"


def _means(rows: list[Row], own: list[Row], metrics: list[Metric]) -> str:
    header = ["method", "clips", *(m.heading for m in metrics), "time / plain"]
    lines = []
    for row in own:
        ratio = _ratio(row, reference_of(rows, row, "plain"))
        lines.append([row.method, str(row.clips), *(_mean(row, m) for m in metrics), ratio])
    return _grid(header, lines)


def _mean(row: Row, metric: Metric) -> str:
    values = row.values.get(metric.name)
    return f"{mean_of(values):.{metric.digits}f}" if values else ""


def _ratio(row: Row, plain: Row | None) -> str:
    ratio = time_ratio(row, plain)
    return "1.00" if row.method == "plain" else "" if math.isnan(ratio) else f"{ratio:.2f}"


def _difference(row: Row, reference: Row | None, metric: Metric, interval: bool = False) -> str:
    found, d = difference(row, reference, metric.name), metric.digits
    if found is None:
        return ""
    shown = f"{found.mean:+.{d}f}" + "*" * found.is_clear
    if interval and not math.isnan(found.low):
        shown += f" [{found.low:+.{d}f}, {found.high:+.{d}f}]"
    return shown


def _difference_line(row: Row, reference: Row | None, metrics: list[Metric]) -> list[str]:
    return [row.method, *(_difference(row, reference, m, interval=True) for m in metrics)]


def _difference_cells(row: Row, reference: Row | None, metric: Metric) -> list[str]:
    found = difference(row, reference, metric.name)
    return [_number(x) for x in (found.mean, found.low, found.high)] if found else [""] * 3


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _grid(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
