"""How fast this device multiplies matrices and attends: FLOP a second, medians of a few short runs."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F


def matmul_rate(device: torch.device, dtype: torch.dtype, tokens: int, width: int) -> float:
    """[tokens, width] x [width, 4 width], the shape of a feed-forward layer."""
    left = torch.randn(tokens, width, device=device, dtype=dtype)
    right = torch.randn(width, 4 * width, device=device, dtype=dtype)
    return 2 * tokens * width * 4 * width / seconds(lambda: left @ right, device)


def attention_rate(
    device: torch.device, dtype: torch.dtype, tokens: int, heads: int, head_dim: int
) -> float:
    """Every token to every token."""
    rows = torch.randn(1, heads, tokens, head_dim, device=device, dtype=dtype)
    return (
        4
        * heads
        * tokens**2
        * head_dim
        / seconds(lambda: F.scaled_dot_product_attention(rows, rows, rows), device)
    )


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
