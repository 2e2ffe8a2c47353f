"""A small resumable training loop: AdamW, cosine decay, EMA, state in safetensors, a log line every few steps."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LOG_EVERY = 50


def train(
    module: nn.Module,
    loss_at: Callable[[int], dict[str, Tensor]],
    folder: Path,
    steps: int,
    learning_rate: float,
    ema_decay: float = 0.999,
    save_every: int = 500,
    on_save: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> dict[str, Tensor]:
    """Train the parameters of `module` that require a gradient; return their exponential moving average.

    `loss_at(step)` gives named losses, of which `loss` is minimised; it must depend on the step alone, so that a
    resumed run goes on as if it had not been stopped. `folder` holds `state.safetensors` and `log.jsonl`; a state
    found there is resumed. `on_save(step, ema)` is called after each save.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = {name: p for name, p in module.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in params.items()}
    optimizer = torch.optim.AdamW(params.values(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    step, began = _resume(folder, params, ema, optimizer), time.monotonic()
    first = step
    sums: dict[str, float] = {}
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        losses = loss_at(step)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in params.values()], 1 - decay)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / LOG_EVERY
        if step % LOG_EVERY == 0:
            left = (time.monotonic() - began) / (step - first) * (steps - step)
            _log(
                folder,
                {"step": step, **{k: round(v, 6) for k, v in sums.items()}, "minutes_left": round(left / 60, 1)},
            )
            sums = {}
        if step % save_every == 0 or step == steps:
            _save(folder, params, ema, optimizer, step)
            if on_save:
                on_save(step, ema)
    return ema


def _schedule(step: int, steps: int, warmup: int = 200) -> float:
    """Linear warm-up, then cosine to zero."""
    return min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _log(folder: Path, line: dict) -> None:
    text = json.dumps(line)
    print(f"{folder.name}: {text}", flush=True)
    with open(folder / "log.jsonl", "a") as file:
        file.write(text + "\n")


def _save(folder: Path, params: dict, ema: dict, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {"step": torch.tensor(step)}
    for name, param in params.items():
        state = optimizer.state[param]
        tensors |= {
            f"param.{name}": param.detach().contiguous(),
            f"ema.{name}": ema[name].contiguous(),
            f"first.{name}": state["exp_avg"].contiguous(),
            f"second.{name}": state["exp_avg_sq"].contiguous(),
        }
    save_file(tensors, folder / "state.tmp")
    os.replace(folder / "state.tmp", folder / "state.safetensors")


def _resume(folder: Path, params: dict, ema: dict, optimizer: torch.optim.Optimizer) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    saved = load_file(path)
    step = int(saved["step"])
    with torch.no_grad():
        for name, param in params.items():
            param.copy_(saved[f"param.{name}"])
            ema[name].copy_(saved[f"ema.{name}"])
            optimizer.state[param] = {
                "step": torch.tensor(float(step)),
                "exp_avg": saved[f"first.{name}"].to(param.device),
                "exp_avg_sq": saved[f"second.{name}"].to(param.device),
            }
    return step
