"""How fast a device multiplies matrices and attends: FLOP a second, medians of a few short runs."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from kvlock.backbones.checkpoints import cache_folder
from kvlock.cost.counting import Counter
from kvlock.cost.dry_run import Cost
from kvlock.cost.skeleton import one_layer

FILE = "rates.json"


@dataclass(frozen=True)
class Rates:
    """What a device reaches on a model, FLOP a second; `measured` on it, or estimated."""

    linear: float
    attention: float
    measured: bool = True

    def seconds(self, cost: Cost) -> float:
        """How long an edit's denoising takes."""
        return cost.linear_flops / self.linear + cost.attention_flops / self.attention


def device_rates(
    backbone: Any, device: torch.device, say: Callable[[str], None] = lambda words: None
) -> Rates:
    """The device's rates on a meta backbone's model; of the user's cache once they were measured.

    `say` gets a sentence before what takes seconds.
    """
    path, key = cache_folder() / FILE, _key(backbone, device)
    known = _read(path)
    if key in known:
        return Rates(*known[key])
    say(f"measuring how fast {device} is on this model; the next call has it in {path}")
    rates = measured_rates(backbone, device)
    _write(path, _read(path) | {key: (rates.linear, rates.attention)})
    return rates


@torch.no_grad()
def measured_rates(backbone: Any, device: torch.device) -> Rates:
    """From one random layer of the model's width and one large attention; a few seconds."""
    config, dtype = backbone.pipe.transformer.config, backbone.pipe.transformer.dtype
    heads, head_dim = config.num_attention_heads, config.attention_head_dim
    side = 32 if device.type == "cuda" else 16  # tokens each way of a frame
    frames = 8 if device.type == "cuda" else 2
    size = tuple(n * p for n, p in zip((frames, side, side), backbone.patch_size))
    with Counter() as counter:
        _forward(one_layer(backbone, "meta"), size)()
    attention = attention_rate(device, dtype, 4 * frames * side**2, heads, head_dim)
    whole = seconds(_forward(one_layer(backbone, str(device)), size), device)
    inside = min(counter.attention_flops / attention, 0.9 * whole)
    linear = counter.linear_flops / (whole - inside)
    return Rates(linear, attention)


def _forward(backbone: Any, size: tuple[int, ...]) -> Callable[[], Any]:
    latents, prompt, condition = backbone.random_inputs(1, size)
    timestep = torch.full((1,), 500.0)
    return lambda: backbone.predict(latents, timestep, prompt, condition)


def matmul_rate(device: torch.device, dtype: torch.dtype, tokens: int, width: int) -> float:
    """[tokens, width] x [width, 4 width], the shape of a feed-forward layer."""
    left = torch.randn(tokens, width, device=device, dtype=dtype)
    right = torch.randn(width, 4 * width, device=device, dtype=dtype)
    return 2 * tokens * width * 4 * width / seconds(lambda: left @ right, device)


def attention_rate(
    device: torch.device, dtype: torch.dtype, tokens: int, heads: int, head_dim: int
) -> float:
    """Every token to every token."""
    x = torch.randn(1, heads, tokens, head_dim, device=device, dtype=dtype)
    taken = seconds(lambda: F.scaled_dot_product_attention(x, x, x), device)
    return 4 * heads * tokens**2 * head_dim / taken


@torch.no_grad()
def seconds(function: Callable[[], object], device: torch.device, runs: int = 5) -> float:
    """The median time of `function` after one run to warm up."""
    times = []
    for _ in range(runs + 1):
        synchronise(device)
        began = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(backbone: Any, device: torch.device) -> str:
    """What the rates hang on."""
    name = f"{platform.node()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    transformer = backbone.pipe.transformer
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    model = f"{backbone.spec.name}, width {width}, {transformer.dtype}"
    return f"{device.type}: {name}; {model}; torch {torch.__version__}"


def _read(path: Path) -> dict[str, tuple[float, float]]:
    """Empty where there is no such file, or none that can be read: it is measured again."""
    try:
        pairs = json.loads(path.read_text()).items()
        return {key: (float(linear), float(attention)) for key, (linear, attention) in pairs}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(path: Path, known: dict[str, tuple[float, float]]) -> None:
    """Whole or not at all; without a cache folder, not at all."""
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(known, indent=1))
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
