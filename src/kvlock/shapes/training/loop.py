"""A small resumable training loop: Muon and AdamW, averaged weights, state on disk, a log."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LOG_EVERY = 50
SAVE_SECONDS = 420.0
STATE = "state.safetensors"
WARM_UP = 200
DECAY_SHARE = 0.3  # of the steps, at the end, in which the learning rate falls to zero
WEIGHT_DECAY = 0.01


def train(
    module: nn.Module,
    loss_at: Callable[[int], dict[str, Tensor]],
    folder: Path,
    steps: int,
    learning_rate: float,
    ema_decay: float = 0.999,
    save_seconds: float = SAVE_SECONDS,
    look_every: int = 0,
    on_look: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> dict[str, Tensor]:
    """Train the parameters of `module` that require a gradient; return their moving average.

    `loss_at(step)` gives named losses, of which `loss` is minimised; it must depend on the step
    alone, so that a resumed run goes on as if it had not been stopped. `folder` holds
    `state.safetensors`, written every `save_seconds` and at the end, and `log.jsonl`; a state found
    there is resumed. `on_look(step, ema)` is called after every `look_every` steps.
    The learning rate is constant until the last 30 % of the steps: to end a run early, resume it
    with fewer steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = {name: p for name, p in module.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in params.items()}
    optimizers = _optimizers(params)
    step = _resume(folder, params, ema, optimizers)
    if not (folder / STATE).exists():
        _save(folder, params, ema, optimizers, step)
    log, saved = _Log(folder, step, steps), time.monotonic()
    while step < steps:
        _set_learning_rate(optimizers, learning_rate * _schedule(step, steps))
        losses = loss_at(step)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in params.values()], 1 - decay)
        log.add(step, losses)
        if step == steps or time.monotonic() - saved >= save_seconds:
            _save(folder, params, ema, optimizers, step)
            saved = time.monotonic()
        if on_look and step % look_every == 0:
            on_look(step, ema)
    return ema


def load_average(folder: Path) -> dict[str, Tensor]:
    """The averaged weights in a run's state, by parameter name.

    Raises ValueError where the folder holds no state.
    """
    path = folder / STATE
    if not path.exists():
        raise ValueError(f"{folder} holds no {STATE}; train the stage {folder.name!r} first")
    return {n.removeprefix("ema."): t for n, t in load_file(path).items() if n.startswith("ema.")}


class _Log:
    """Means of the losses over LOG_EVERY steps, a line each, with how long is left at this pace."""

    def __init__(self, folder: Path, step: int, steps: int):
        self._folder, self._steps = folder, steps
        self._sums, self._since, self._began = {}, step, time.monotonic()
        self._counts: dict[str, int] = {}

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
            self._counts[name] = self._counts.get(name, 0) + 1
        if step % LOG_EVERY:
            return
        seconds = (time.monotonic() - self._began) / (step - self._since)
        means = {name: round(total / self._counts[name], 6) for name, total in self._sums.items()}
        left = round(seconds * (self._steps - step) / 60, 1)
        line = {"step": step, **means, "seconds": round(seconds, 3), "minutes_left": left}
        text = json.dumps(line)
        print(f"{self._folder.name}: {text}", flush=True)
        with open(self._folder / "log.jsonl", "a") as file:
            file.write(text + "\n")
        self._sums, self._counts, self._since, self._began = {}, {}, step, time.monotonic()


def _optimizers(params: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for the rest, at one learning rate."""
    matrices = [p for name, p in params.items() if "blocks." in name and p.ndim == 2]
    others = [p for name, p in params.items() if not ("blocks." in name and p.ndim == 2)]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
        found.append(muon)
    if others:
        found.append(
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True)
        )
    return found


def _set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, constant, then linear to zero."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY_SHARE * steps))


def _save(
    folder: Path,
    params: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    step: int,
) -> None:
    tensors = {"step": torch.tensor(step)}
    for name, param in params.items():
        tensors |= {f"param.{name}": param.detach(), f"ema.{name}": ema[name]}
        for optimizer in optimizers:
            for key, value in optimizer.state.get(param, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "state.tmp")
    os.replace(folder / "state.tmp", folder / STATE)


def _resume(
    folder: Path,
    params: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> int:
    path = folder / STATE
    if not path.exists():
        return 0
    saved = load_file(path)
    owners = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    with torch.no_grad():
        for name, param in params.items():
            param.copy_(saved[f"param.{name}"])
            ema[name].copy_(saved[f"ema.{name}"])
            keys = [k for k in saved if k.startswith("optimizer.") and k.endswith(f".{name}")]
            state = {k.split(".")[1]: saved[k] for k in keys if k.split(".", 2)[2] == name}
            if state:
                owners[param].state[param] = {
                    key: value if key == "step" else value.to(param.device)
                    for key, value in state.items()
                }
    return int(saved["step"])
