"""`report.html`: per clip source, mask, truth and every method side by side, playing in step, and traces."""

import html
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvlock.bench.jobs import Workplace
from kvlock.bench.runner import CEILING, load_subject
from kvlock.bench.suite import Item, Suite
from kvlock.media.video import write_video
from kvlock.methods.table import METHODS

PLOT = (200, 60)  # width and height of a trace's plot
CURVES = {"variance": "#1f77b4", "fusion_ratio": "#d62728", "guidance_scale": "#2ca02c"}

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px sans-serif; margin: 1em }} figure {{ display: inline-block; margin: 4px; vertical-align: top }}
video {{ width: {width}px; image-rendering: pixelated; display: block; background: #ddd }}
figcaption {{ font-size: 12px; max-width: {width}px }} h2 {{ font-size: 15px; margin: 1em 0 0.2em }}
pre {{ overflow-x: auto; font-size: 11px }} .wrong {{ color: #b00 }} svg {{ background: #f6f6f6; display: block }}
</style><h1>{title}</h1>
<p><button onclick="toggle()">play / pause</button> <button onclick="restart()">from the start</button>
Curves under a clip, each from 0 to its largest value: {legend}.</p>
{body}
<details><summary>table</summary><pre>{table}</pre></details>
<script>
const clips = [...document.querySelectorAll('video')];
let playing = true;
function restart() {{ for (const c of clips) c.currentTime = 0; }}
function toggle() {{ playing = !playing; for (const c of clips) playing ? c.play() : c.pause(); }}
// One clip of a row leads; the others follow where they drift by more than half a frame.
setInterval(() => {{ for (const row of document.querySelectorAll('section')) {{
  const [lead, ...rest] = row.querySelectorAll('video');
  for (const c of rest) if (Math.abs(c.currentTime - lead.currentTime) > 0.06) c.currentTime = lead.currentTime;
}} }}, 250);
</script>
"""


def write_report(out: Path, most: int, table: str) -> Path:
    """Write the page and the clips it needs beside the results, for the first `most` clips of the suite."""
    record = json.loads((out / "suite.json").read_text())
    suite = Suite(record["name"], Path(record["folder"]), tuple(Item(**i) for i in record["items"]))
    by_item: dict[str, list[dict]] = {}
    for result in Workplace(out).read():
        by_item.setdefault(result["job"]["item"], []).append(result)
    shown = [item for item in suite.items if item.id in by_item][:most]
    sections = [_section(out, suite, item, by_item[item.id]) for item in shown]
    width = 160
    legend = ", ".join(f'<span style="color:{c}">{name}</span>' for name, c in CURVES.items())
    page = PAGE.format(
        title=html.escape(f"kvlock bench: {suite.name}"),
        width=width,
        body="\n".join(sections),
        legend=legend,
        table=html.escape(table),
    )
    unfinished = out / ".report.html"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


def _section(out: Path, suite: Suite, item: Item, results: list[dict]) -> str:
    folder = out / "clips" / item.id
    folder.mkdir(parents=True, exist_ok=True)
    subject = load_subject(suite, item, 0)
    known = subject.known
    clips = {"source": known.source, "mask": np.repeat(known.mask[..., None] * np.uint8(255), 3, axis=-1)}
    if known.truth is not None:
        clips["truth"] = known.truth
    figures = []
    for name, frames in clips.items():
        path = folder / f"{name}.mp4"
        if not path.exists():
            write_video(path, frames, subject.clip)
        figures.append(_figure(f"clips/{item.id}/{name}.mp4", name))
    order = [CEILING, *METHODS]
    for result in sorted(
        results, key=lambda r: (r["job"]["model"], order.index(r["job"]["method"]), r["job"]["seed"])
    ):
        figures.append(_result_figure(out, result))
    title = f"{item.id}: {item.edit_type} {item.source_prompt!r} -> {item.prompt!r}"
    return f"<section><h2>{html.escape(title)}</h2>{''.join(figures)}</section>"


def _result_figure(out: Path, result: dict) -> str:
    job, scores = result["job"], result["scores"][""]
    caption = f"{job['method']}, {job['model']}" + (f", seed {job['seed']}" if job["seed"] else "")
    caption += f"<br>background {scores['psnr_background']:.2f} dB" if "psnr_background" in scores else ""
    caption += f", inside {scores['psnr_inside']:.2f} dB" if "psnr_inside" in scores else ""
    if scores.get("right_edit") == 0:
        caption = f'<span class="wrong">{caption}, wrong</span>'
    trace = json.loads((out / "results" / result["folder"] / "trace.json").read_text())
    return _figure(f"results/{result['folder']}/edited.mp4", caption, _plot(trace))


def _figure(source: str, caption: str, below: str = "") -> str:
    video = f'<video src="{html.escape(source)}" autoplay loop muted playsinline></video>'
    return f"<figure>{video}{below}<figcaption>{caption}</figcaption></figure>"


def _plot(trace: Sequence[dict]) -> str:
    """The trace's curves as one small SVG."""
    width, height = PLOT
    lines = []
    for name, colour in CURVES.items():
        values = [r[name] for r in trace]
        most = max((v for v in values if v is not None), default=0)
        if not most:
            continue
        points = [
            f"{i * width / max(len(values) - 1, 1):.1f},{height - 2 - (height - 4) * v / most:.1f}"
            for i, v in enumerate(values)
            if v is not None
        ]
        lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"/>')
    return f'<svg width="160" viewBox="0 0 {width} {height}">{"".join(lines)}</svg>' if lines else ""
