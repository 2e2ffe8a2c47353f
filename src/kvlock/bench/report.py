"""`report.html`: per clip source, mask and truth, and beside them every method, playing in step,
with traces.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor

from kvlock.bench.jobs import method_order
from kvlock.bench.results import Result, read_results
from kvlock.bench.subjects import load_subject
from kvlock.bench.suite import Item, Suite
from kvlock.media.files import write_text
from kvlock.media.video import write_video
from kvlock.work.folder import make_inside

WIDTH = 160  # of a clip, in CSS pixels
PLOT = (200, 60)  # width and height of a trace's plot
CURVES = {
    "variance": ("variance inside the mask", "#1f77b4"),
    "fusion_ratio": ("alpha, weight of the source's keys and values", "#d62728"),
    "guidance_scale": ("omega, guidance scale", "#2ca02c"),
}

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px sans-serif; margin: 1em }}
h2 {{ font-size: 15px; margin: 0 0 0.3em }}
section {{ border-top: 1px solid #ccc; padding: 0.8em 0 }}
/* The known clips stay beside every row of methods, however many rows there are. */
.clip {{ display: grid; grid-template-columns: max-content 1fr; gap: 12px; align-items: start }}
.known {{ position: sticky; top: 8px; padding-right: 12px; border-right: 2px solid #ccc }}
.methods {{ display: grid; grid-template-columns: repeat(auto-fill, {width}px); gap: 10px }}
figure {{ margin: 0 0 6px }}
video {{ width: {width}px; image-rendering: pixelated; display: block; background: #ddd }}
figcaption {{ font-size: 12px; width: {width}px }}
pre {{ overflow-x: auto; font-size: 11px }}
.wrong {{ color: #b00 }}
svg {{ background: #f6f6f6; display: block }}
</style><h1>{title}</h1>
<p><button onclick="toggle()">play / pause</button>
<button onclick="restart()">from the start</button>
Curves under a clip, over the steps, each from 0 to its largest value: {legend}.</p>
{body}
<details><summary>table</summary><pre>{table}</pre></details>
<script>
const clips = [...document.querySelectorAll('video')];
let playing = true;
function restart() {{ for (const c of clips) c.currentTime = 0; }}
function toggle() {{ playing = !playing; for (const c of clips) playing ? c.play() : c.pause(); }}
// One clip of a section leads; the others follow where they drift by more than half a frame.
setInterval(() => {{ for (const section of document.querySelectorAll('section')) {{
  const [lead, ...rest] = section.querySelectorAll('video');
  for (const c of rest)
    if (Math.abs(c.currentTime - lead.currentTime) > 0.06) c.currentTime = lead.currentTime;
}} }}, 250);
</script>
"""


def write_report(out: Path, most: int, table: str) -> Path:
    """Write the page and the clips it needs beside the results, for the first `most` clips of the
    suite.
    """
    suite, results = read_results(out)
    by_item: dict[str, list[Result]] = {}
    for result in results:
        by_item.setdefault(result.item, []).append(result)
    shown = [item for item in suite.items if item.id in by_item][:most]
    sections = [_section(out, suite, item, by_item[item.id]) for item in shown]
    legend = ", ".join(f'<span style="color:{c}">{name}</span>' for name, c in CURVES.values())
    page = PAGE.format(
        title=html.escape(f"kvlock bench: {suite.name}"),
        width=WIDTH,
        body="\n".join(sections),
        legend=legend,
        table=html.escape(table),
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def _section(out: Path, suite: Suite, item: Item, results: list[Result]) -> str:
    known = "".join(_known_figures(out, suite, item))
    ordered = sorted(results, key=lambda r: (r.model, method_order(r.method), r.seed))
    methods = "".join(_result_figure(out, result) for result in ordered)
    title = html.escape(f"{item.id}: {item.edit_type} {item.source_prompt!r} -> {item.prompt!r}")
    return (
        f'<section><h2>{title}</h2><div class="clip"><div class="known">{known}</div>'
        f'<div class="methods">{methods}</div></div></section>'
    )


def _known_figures(out: Path, suite: Suite, item: Item) -> list[str]:
    """Source, mask and, where it is known, the truth; written as clips of their own."""
    subject, folder = load_subject(suite, item, 0), out / "clips" / item.id
    known = subject.known
    clips = {"source": known.source, "mask": _white(known.mask), "truth": known.truth}
    make_inside(out, folder)
    figures = []
    for name, frames in clips.items():
        if frames is not None:
            path = folder / f"{name}.mp4"
            if not path.exists():
                write_video(path, frames, subject.clip)
            figures.append(_figure(path.relative_to(out), name))
    return figures


def _white(mask: Tensor) -> Tensor:
    """White inside the mask, black outside: uint8 [F, H, W, 3]."""
    return (mask[..., None].byte() * 255).repeat(1, 1, 1, 3)


def _result_figure(out: Path, result: Result) -> str:
    scores = result.scores.get("", {})
    lines = [f"{result.method}, {result.model}" + (f", seed {result.seed}" if result.seed else "")]
    if "psnr_background" in scores:
        lines.append(f"background {scores['psnr_background']:.2f} dB")
    if "psnr_inside" in scores:
        lines[-1] += f", inside {scores['psnr_inside']:.2f} dB"
    caption = "<br>".join(html.escape(line) for line in lines)
    if scores.get("right_edit") == 0:
        caption = f'<span class="wrong">{caption}, wrong</span>'
    return _figure(result.video.relative_to(out), caption, _plot(result.trace()))


def _figure(source: Path, caption: str, below: str = "") -> str:
    address = html.escape(quote(source.as_posix()))
    video = f'<video src="{address}" autoplay loop muted playsinline></video>'
    return f"<figure>{video}{below}<figcaption>{caption}</figcaption></figure>"


def _plot(trace: Sequence[dict[str, Any]]) -> str:
    """The trace's curves as one small SVG."""
    width, height = PLOT
    lines = []
    for name, (_, colour) in CURVES.items():
        values = [record[name] for record in trace]
        most = max((v for v in values if v is not None), default=0)
        if not most:
            continue
        points = [
            f"{i * width / max(len(values) - 1, 1):.1f},{height - 2 - (height - 4) * v / most:.1f}"
            for i, v in enumerate(values)
            if v is not None
        ]
        lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"/>')
    drawn = "".join(lines)
    return f'<svg width="{WIDTH}" viewBox="0 0 {width} {height}">{drawn}</svg>' if lines else ""
