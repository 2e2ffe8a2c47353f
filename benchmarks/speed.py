"""What each mode costs against plain sampling, in time and memory, and how far both are from what the device can do.

    python benchmarks/speed.py [--model middle] [--steps N] [--repeats 3] [--foreground 0.05,0.1,0.2,0.4]
                               [--modes "plain;drop"] [--whole] [--compile] [--json FILE] [--quick]

Models: `middle`, a random Wan-VACE of width 384 on 8,400 tokens; shapes; or a known model's architecture with random
weights (wan2.1-t2v-1.3b, ... on a GPU, 832x480, 81 frames). Steps of one kind all cost the same, so each mode runs a
few steps of each of its kinds, and what `--steps` of them would take is summed over its schedule; `--whole` runs them
all. Modes run in turn, as often as --repeats says; ratios are medians over the turns. Only steps are timed, not
encoding. Plain sampling runs row by row, as diffusers' pipelines do. `--foreground` is the share of tokens that are
computed, mask and margin together. The floor is the operations a mode has to do over the rates that a large matrix
product and a large attention reach here, in the same run. Memory is what a mode needs beyond the weights: measured on
a GPU, elsewhere counted on the meta device.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from kvlock.backbones.dry_run import Cost, denoising_cost
from kvlock.backbones.estimate import centred_mask
from kvlock.backbones.rates import attention_rate, matmul_rate, synchronise
from kvlock.backbones.skeleton import assembled, skeleton
from kvlock.methods.table import METHODS
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from kvlock.contract.types import EditRequest
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import edit_clips
from kvlock.core.schedule import StepKind, step_kind

MIDDLE: dict[str, Any] = dict(
    num_attention_heads=6,
    attention_head_dim=64,
    ffn_dim=1536,
    num_layers=2,
    vace_layers=[0],
    text_dim=64,
)
SIZES = {"middle": (25, 480, 640), "shapes": (9, 96, 96), "shapes-t2v": (9, 96, 96)}
LOCK: dict[str, Any] = dict(METHODS["rigid"], background_anchor="none")
DROP: dict[str, Any] = dict(LOCK, drop_background="all", drop_margin=0)
MODES: dict[str, dict[str, Any]] = {
    "plain": dict(METHODS["plain"], rows="sequential"),
    "lean": LOCK,
    "lean, low memory": dict(LOCK, rows="sequential"),
    "lock in all steps": dict(LOCK, lock_steps=1.0),
    "lock in all steps, low memory": dict(LOCK, lock_steps=1.0, rows="sequential"),
    "plain, one batch": METHODS["plain"],
    "drop in the lock steps": dict(DROP, drop_background="locked"),
    "drop": DROP,
    "drop, refresh 2": dict(DROP, source_refresh=2),
    "drop, refresh 4": dict(DROP, source_refresh=4),
    "fast": dict(METHODS["fast"], drop_margin=0),
    "drop, context 0.4, refresh 2": dict(DROP, source_refresh=2, background_context=0.4),
    "drop, 4 variants": DROP,
    "drop, refresh 4, 4 variants": dict(DROP, source_refresh=4),
}
VARIANTS = {"drop, 4 variants": 4, "drop, refresh 4, 4 variants": 4}
WITHOUT_FOREGROUND = [
    name for name in MODES if MODES[name].get("drop_background", "none") == "none"
]


class Encoded:
    """A backbone whose clip, prompts and condition are encoded, so that the steps alone take time."""

    def __init__(self, backbone: Any, latent_size: tuple[int, int, int], dtype: torch.dtype):
        self._backbone, self._size, self._dtype = backbone, latent_size, dtype
        self.begin: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(
            self._backbone.device
        )

    def encode_video(self, video: torch.Tensor) -> torch.Tensor:
        return self._random(
            len(video), self._backbone.pipe.transformer.config.in_channels, *self._size
        )

    def condition(self, video: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        channels = self._backbone.pipe.transformer.config.get("vace_in_channels", 0)
        return self._random(len(video), channels, *self._size).to(self._dtype) if channels else None

    def attention_sites(self) -> list[Any]:
        self.begin()  # the last that an edit asks for before its steps
        return self._backbone.attention_sites()

    def encode_prompt(self, prompts: list[str]) -> torch.Tensor:
        width = self._backbone.pipe.transformer.config.text_dim
        return self._random(len(prompts), self._backbone.max_sequence_length, width).to(self._dtype)

    def decode_video(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


def backbones(model: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model with random weights, and the same without any."""
    if model == "middle":
        return tuple(
            assembled("wan-vace", MIDDLE, {}, place, dtype) for place in (str(device), "meta")
        )
    return skeleton(model, str(device), dtype), skeleton(model, "meta", dtype)


def few_steps(config: KVLockConfig) -> dict[str, Any]:
    """Fields with which every kind of step is made twice, after a first one of any."""
    fields: dict[str, Any] = {"num_inference_steps": 5}
    if config.refresh_steps > 1:
        fields["source_refresh"] = 2
    if config.guidance_interval != (0.0, 1.0):
        fields["num_inference_steps"] = 12  # of which 3 are below the interval
    elif 0 < config.count(config.lock_steps) < config.num_inference_steps:
        fields["lock_steps"] = 2
    return fields


class Run:
    """One model on one device, edited in every mode."""

    def __init__(self, model: str, device: torch.device, dtype: torch.dtype, compiled: bool):
        self.model, self.device = model, device
        real, self.meta = backbones(model, device, dtype)
        if compiled:
            real.pipe.transformer.compile_repeated_blocks(dynamic=True)
        stride, frames, height, width = real.vae_stride, *SIZES.get(model, (81, 480, 832))
        self.video_size = (frames, height, width)
        self.latent_size = ((frames - 1) // stride[0] + 1, height // stride[1], width // stride[2])
        self.stride, self.patch = stride, real.patch_size
        self.tokens = torch.Size(self.latent_size).numel() // torch.Size(self.patch).numel()
        self.backbone = Encoded(real, self.latent_size, dtype)
        architecture = real.pipe.transformer.config
        heads, head_dim = architecture.num_attention_heads, architecture.attention_head_dim
        self.linear = matmul_rate(device, dtype, self.tokens, heads * head_dim)
        self.attention = attention_rate(device, dtype, self.tokens, heads, head_dim)

    def cost(self, mode: str, share: float, steps: int) -> Cost:
        config = KVLockConfig(num_inference_steps=steps, **MODES[mode])
        mask = centred_mask(self.latent_size, self.patch, share)
        return denoising_cost(self.meta, mask, config, VARIANTS.get(mode, 1))

    def floor(self, cost: Cost) -> float:
        return cost.linear_flops / self.linear + cost.attention_flops / self.attention

    def seconds(self, mode: str, share: float, steps: int, whole: bool) -> float:
        """What all steps take; without `whole`, from a few of each kind."""
        config = KVLockConfig(num_inference_steps=steps, **MODES[mode])
        few = config if whole else replace(config, **few_steps(config))
        took = self.step_seconds(few, share, VARIANTS.get(mode, 1))
        if whole:
            return sum(took)
        sigmas = [self.kinds(c) for c in (config, few)]
        by_kind: dict[StepKind, list[float]] = {}
        for kind, time_taken in list(zip(sigmas[1], took))[1:]:  # the first warms up
            by_kind.setdefault(kind, []).append(time_taken)
        return sum(statistics.median(by_kind[kind]) for kind in sigmas[0])

    def kinds(self, config: KVLockConfig) -> list[StepKind]:
        sigmas = self.backbone.sampler(config.num_inference_steps, multistep=False).sigmas
        return [step_kind(config, k, sigmas[k]) for k in range(config.num_inference_steps)]

    def step_seconds(self, config: KVLockConfig, share: float, variants: int) -> list[float]:
        latents = centred_mask(self.latent_size, self.patch, share)
        pixels = latents.repeat_interleave(self.stride[1], 1).repeat_interleave(self.stride[2], 2)
        mask = pixels[:1].expand(self.video_size[0], -1, -1).clone()
        video = torch.zeros(*self.video_size, 3, dtype=torch.uint8)
        requests = [
            EditRequest(video, mask, "x", seed=i, background_seed=0) for i in range(variants)
        ]
        marks: list[float] = []

        def mark(_: object) -> None:
            synchronise(self.device)
            marks.append(time.perf_counter())

        self.backbone.begin = lambda: mark(None)
        edit_clips(self.backbone, requests, config, mark)
        return [after - before for before, after in zip(marks, marks[1:])]

    def peak(self, mode: str, share: float, cost: Cost) -> int:
        if self.device.type != "cuda":
            return cost.peak_bytes
        weights = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        config = KVLockConfig(num_inference_steps=50, **MODES[mode])
        self.step_seconds(replace(config, **few_steps(config)), share, VARIANTS.get(mode, 1))
        return torch.cuda.max_memory_allocated(self.device) - weights


def measure(
    run: Run, modes: list[str], shares: list[float], steps: int, repeats: int, whole: bool
) -> list[dict[str, Any]]:
    """One row a mode and share."""
    pairs = [(m, s) for m in modes for s in (shares[:1] if m in WITHOUT_FOREGROUND else shares)]
    costs = {pair: run.cost(*pair, steps) for pair in pairs}
    plain = run.cost("plain", shares[0], steps)
    times: dict[tuple[str, float], list[float]] = {pair: [] for pair in pairs}
    plains = []
    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        for mode, share in bar.track(
            [p for _ in range(repeats) for p in [("plain", 0.0), *pairs]], description="speed"
        ):
            if share == 0.0:
                plains.append(run.seconds(mode, shares[0], steps, whole))
            else:
                times[mode, share].append(run.seconds(mode, share, steps, whole) / plains[-1])
    rows = []
    for (mode, share), ratios in times.items():
        cost, variants = costs[mode, share], VARIANTS.get(mode, 1)
        rows.append(
            {
                "mode": mode,
                "model": run.model,
                "tokens": run.tokens,
                "foreground": None if mode in WITHOUT_FOREGROUND else share,
                "steps": steps,
                "forwards": cost.rows / variants,
                "time_ratio": statistics.median(ratios) / variants,
                "floor_ratio": run.floor(cost) / run.floor(plain) / variants,
                "peak_memory_bytes": run.peak(mode, share, cost),
                "time_ratios": [r / variants for r in ratios],
                "plain_seconds": statistics.median(plains),
                "plain_floor_seconds": run.floor(plain),
            }
        )
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="middle")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--foreground", default="0.05,0.1,0.2,0.4")
    parser.add_argument("--modes", default=";".join(MODES), help="names, with ; between them")
    parser.add_argument("--whole", action="store_true", help="run every step of every mode")
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks, in plain sampling too"
    )
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument(
        "--quick", action="store_true", help="the shapes model alone, under a minute"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.foreground, arguments.repeats = "shapes", "0.2", 3
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    steps = arguments.steps
    run = Run(arguments.model, device, dtype, arguments.compile)
    shares = [float(s) for s in arguments.foreground.split(",")]
    rows = measure(
        run, arguments.modes.split(";"), shares, steps, arguments.repeats, arguments.whole
    )
    table = Table("mode", "f", "forwards", "time", "floor", "distance", "GB beyond weights")
    away = rows[0]["plain_seconds"] / rows[0]["plain_floor_seconds"]
    for row in rows:
        f, distance = row["foreground"], row["time_ratio"] / row["floor_ratio"]
        cells = (
            f"{row['forwards']:g}",
            f"{row['time_ratio']:.2f}",
            f"{row['floor_ratio']:.2f}",
            f"{distance:.2f}",
        )
        table.add_row(
            row["mode"],
            "" if f is None else f"{f:g}",
            *cells,
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
        )
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{arguments.model}, {run.tokens} tokens, {steps} steps, {dtype}, {name}, {platform.processor()}"
    )
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    print(
        f"plain: {rows[0]['plain_seconds']:.2f} s, {away:.2f} times its floor; distances are against that"
    )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
