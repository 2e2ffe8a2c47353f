"""Stages 1 and 6 of the GPU day: single kernels, and the time of each kind of step."""

import functools
import platform
import time
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpu_stages import Part, Setting
from kvlock.cost.rates import seconds, synchronise
from modes import MODES, few_steps
from timing import STEPS, Run, run_of

WIDTH = 1536  # of the 1.3B models
SHARES = (0.05, 0.2)
TIMED = ("plain", "lean", "drop", "fast")
ATTENTION = ("attention", "flash", "fmha", "sdpa")


def first(setting: Setting) -> dict[str, Part]:
    """Stage 1."""
    tokens = (410, 980) if setting.toy else (41_000, 98_000, 196_000)
    embeddings = {
        f"patch embedding, {channels} channels, {count} tokens": Part(embedding, (channels, count))
        for channels in (16, 96)
        for count in tokens
    }
    return {"versions": Part(versions), **embeddings}


def versions(setting: Setting) -> dict[str, Any]:
    """Of what computes, and the GPU's name and memory."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if setting.device.type == "cuda":
        free, there = torch.cuda.mem_get_info()
        found |= {"gpu": torch.cuda.get_device_name(), "free_bytes": free, "bytes": there}
    return found


@torch.no_grad()
def embedding(setting: Setting, channels: int, tokens: int) -> dict[str, float]:
    """Packed tokens through a Conv3d of stride = kernel, and through the same as a product."""
    torch.manual_seed(0)
    width = 64 if setting.toy else WIDTH
    patches = torch.randn(1, channels, tokens, 2, 2, device=setting.device, dtype=torch.bfloat16)
    kernel = (1, 2, 2)
    conv = torch.nn.Conv3d(channels, width, kernel, kernel).to(setting.device, torch.bfloat16)

    def by_linear() -> Tensor:
        flat = patches[0].transpose(0, 1).flatten(1)
        return F.linear(flat, conv.weight.flatten(1), conv.bias)

    difference = (conv(patches)[0, :, :, 0, 0].T - by_linear()).abs().max()
    return {
        "conv3d_ms": 1e3 * seconds(lambda: conv(patches), setting.device),
        "linear_ms": 1e3 * seconds(by_linear, setting.device),
        "largest_difference": float(difference),
    }


def times(setting: Setting) -> dict[str, Part]:
    """Stage 6."""
    kinds = {
        f"ms by kind of step, {mode}, f={share}": Part(by_kind, (mode, share))
        for mode in TIMED
        for share in (SHARES if MODES[mode].config.drop else SHARES[-1:])
    }
    profiles = {f"kernels, {mode}": Part(kernels, (mode,)) for mode in ("plain", "fast")}
    compiled = {
        f"ms by kind of step, {mode}, f=0.2, compiled": Part(by_kind, (mode, 0.2, True), cuda=True)
        for mode in ("plain", "fast")
    }
    return {**kinds, **profiles, "transfers": Part(transfers, cuda=True), **compiled}


@functools.lru_cache(maxsize=1)
def _run(model: str, compiled: bool = False) -> Run:
    return run_of(model, compiled)


def by_kind(
    setting: Setting, mode: str, share: float, compiled: bool = False
) -> list[dict[str, Any]]:
    """Milliseconds of each kind of step."""
    run = _run(setting.model, compiled)
    found = run.seconds_by_kind(MODES[mode], share)
    return [
        {"guided": guided, "source": source, "dropped": dropped, "ms": 1e3 * taken}
        for (guided, source, dropped), taken in found.items()
    ]


def kernels(setting: Setting, mode: str) -> dict[str, Any]:
    """What attention ran as, what took longest, and the share of the time that the GPU was idle."""
    run, config = _run(setting.model), few_steps(MODES[mode].steps(STEPS))
    on_gpu = setting.device.type == "cuda"
    run.edit(config, MODES[mode], 0.2)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        began = time.perf_counter()
        run.edit(config, MODES[mode], 0.2)
        synchronise(setting.device)
        wall = 1e6 * (time.perf_counter() - began)
    events = [(e.key, _own_time(e, on_gpu)) for e in seen.key_averages()]
    events.sort(key=lambda event: -event[1])
    idle = 1 - sum(taken for _, taken in events) / wall if on_gpu else {"needs": "cuda"}
    return {
        "attention": [k for k, _ in events if any(word in k.lower() for word in ATTENTION)][:5],
        "longest_us": dict(events[:12]),
        "wall_us": wall,
        "idle_share": idle,
    }


def _own_time(event: Any, on_gpu: bool) -> float:
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total


def transfers(setting: Setting) -> dict[str, float]:
    """Gigabytes a second between pinned host memory and the GPU, both ways."""
    host = torch.empty(2**29, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=setting.device)
    size, device = host.numel() / 1e9, setting.device
    return {
        "to_gpu": size / seconds(lambda: there.copy_(host, non_blocking=True), device),
        "to_host": size / seconds(lambda: host.copy_(there, non_blocking=True), device),
    }
