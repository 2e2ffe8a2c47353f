"""Stage 5 of the GPU day: what the device held, against the estimate."""

import functools
import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu_stages import Part, Setting
from kvlock.backbones.placement import Offload, Placement
from kvlock.cost.estimate import Estimator, Place, centred_mask
from kvlock.methods.execution import Execution
from kvlock.methods.options import flat, with_options
from modes import FULL_SIZE, Mode
from timing import Encoded, Run, run_of

MODELS = ("wan2.1-vace-1.3b", "wan2.1-vace-14b")
CARDS = (24, 80)  # GB, emulated by a limit on what the process may allocate
OFFLOADS: tuple[Offload, ...] = ("none", "model")
SHARE = 0.2
GPU = torch.device("cuda")
NEEDS: dict[str, Any] = {"needs": "cuda"}
MODES = FULL_SIZE | {"plain, one batch": Mode(FULL_SIZE["plain, row by row"].config)}


def parts(setting: Setting) -> dict[str, Part]:
    """Model after model; the limits come last, because they move the weights."""
    found: dict[str, Part] = {}
    for model in (setting.model,) if setting.toy else MODELS:
        found |= {f"{model}, {name}": Part(steps, (model, name)) for name in MODES}
        coding = ("encode", "decode", "encode, tiled", "decode, tiled")
        found |= {f"{model}, VAE {what}": Part(vae, (model, what)) for what in coding}
        found |= {
            f"{model}, fast in {card} GB, offload {offload}": Part(limited, (model, card, offload))
            for card in CARDS
            for offload in OFFLOADS
        }
    return found


class Current:
    """The model that is on the device now; another one takes its room."""

    def __init__(self) -> None:
        self._run: Run | None = None

    def run_of(self, model: str) -> Run:
        """The model, loaded unless it is the same as before."""
        if self._run is None or self._run.model != model:
            self._run = None
            gc.collect()
            self._run = run_of(model)
        return self._run


CURRENT = Current()


@functools.cache
def _estimator(model: str) -> Estimator:
    return Estimator(model, torch.bfloat16 if torch.cuda.is_available() else torch.float32)


def held(setting: Setting, function: Callable[[], Any]) -> dict[str, Any]:
    """The most that was allocated and reserved meanwhile, beyond what was there before."""
    if setting.device.type != "cuda":
        function()
        return NEEDS
    gc.collect()
    torch.cuda.empty_cache()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    function()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated() - before,
        "reserved_bytes": torch.cuda.max_memory_reserved() - reserved,
    }


def steps(setting: Setting, model: str, name: str) -> dict[str, Any]:
    """The steps of a mode, beyond the weights."""
    run, mode = CURRENT.run_of(model), MODES[name]
    mask, config = centred_mask(run.latent_size, run.patch, SHARE), mode.config
    if mode.execution.source_store == "host":
        config = with_options(config, {"source_refresh": 1})
    counted = _estimator(model).cost(mask, config, mode.execution).peak_bytes
    measured = held(setting, lambda: run.edit(two_steps(mode), mode, SHARE))
    return {"estimated_bytes": counted, "measured": measured}


def two_steps(mode: Mode) -> Any:
    """One without and one with the lock, or one with the source and one that uses it again."""
    options: dict[str, Any] = {"num_inference_steps": 2, "lock_steps": 1}
    if flat(mode.config).get("source_refresh", 1) != 1:
        options["source_refresh"] = 2
    return with_options(mode.config, options)


def vae(setting: Setting, model: str, what: str) -> dict[str, Any]:
    """One way through the VAE, beyond its weights; the estimate is of both ways together."""
    run, tiled = CURRENT.run_of(model), what.endswith("tiled")
    estimated = _estimator(model).coding_bytes(run.video_size, tiled)
    backbone = run.backbone.backbone
    codec = backbone.pipe.vae
    codec.enable_tiling() if tiled else codec.disable_tiling()
    try:
        measured = held(setting, lambda: _coded(run, backbone, what.startswith("encode")))
    finally:
        codec.disable_tiling()
    return {"estimated_bytes": estimated, "measured": measured}


@torch.no_grad()
def _coded(run: Run, backbone: Any, encode: bool) -> Tensor:
    if encode:
        return backbone.encode_video(torch.zeros(1, *run.video_size, 3, dtype=torch.uint8))
    return backbone.decode_video(backbone.random_inputs(1, run.latent_size)[0])


def limited(setting: Setting, model: str, card: int, offload: Offload) -> dict[str, Any]:
    """Whether `fast` fits on a card, by the estimate, and with so much memory allowed here."""
    run, mode = CURRENT.run_of(model), MODES["fast"]
    mask = centred_mask(run.latent_size, run.patch, SHARE)
    execution = Execution(mode.execution.branches, offload=offload)
    need = _estimator(model).need(mode.config, execution, Place(GPU, run.video_size, mask))
    fits = {"estimated_bytes": need, "fits_by_estimate": need <= card * 1e9}
    if setting.device.type != "cuda":
        return {**fits, "fits": NEEDS}
    there = torch.cuda.mem_get_info()[1]
    if there < card * 1e9:
        return {**fits, "fits": f"this GPU has {there / 1e9:.1f} GB"}
    return {**fits, "fits": _fits(run, mode, card * 1e9 / there, offload)}


def _fits(run: Run, mode: Mode, fraction: float, offload: Offload) -> bool:
    """Encode, a few steps and decode, from weights on the host."""
    whole = run.backbone
    pipe = whole.backbone.pipe
    for module in (pipe.transformer, pipe.vae):
        module.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()
    backbone = type(whole.backbone)(pipe, None, Placement(pipe, GPU, offload))
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        run.backbone = Encoded(backbone, run.latent_size)
        _coded(run, backbone, encode=True)
        run.edit(two_steps(mode), mode, SHARE)
        _coded(run, backbone, encode=False)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        run.backbone = whole
