"""Stage 3 of the GPU day: a checkpoint on disk and a video file, through plan, run and write."""

import functools
import gc
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from transformers import UMT5Config

import kvlock
from full_width import write_folder
from gpu_stages import Part, Setting
from kvlock.backbones.families import UMT5_XXL
from kvlock.contract.types import StepRecord
from kvlock.cost.rates import synchronise
from kvlock.media.clip import Clip
from kvlock.media.video import write_video

STEPS = 10
METHOD = "fast"


def parts(setting: Setting) -> dict[str, Part]:
    """In order: each one needs what the one before wrote."""
    return {
        "seconds to write the checkpoint": Part(checkpoint),
        "seconds to write the clip": Part(clip),
        "seconds a stage": Part(stages),
        "seconds of the command line": Part(command_line),
    }


@functools.cache
def _folder() -> Path:
    """Gone when the process ends."""
    _folder.kept = tempfile.TemporaryDirectory()  # type: ignore[attr-defined]
    return Path(_folder.kept.name)  # type: ignore[attr-defined]


def checkpoint(setting: Setting) -> float:
    """1.3B VACE in bfloat16 with a text encoder of full size, random; or the built-in world's."""
    began = time.monotonic()
    if setting.toy:
        kvlock.load_backbone("shapes", "cpu").pipe.save_pretrained(_folder() / "model")
    else:
        write_folder(_folder() / "model", UMT5Config.from_dict(UMT5_XXL), str(setting.device))
    _free(setting)
    return time.monotonic() - began


def clip(setting: Setting) -> float:
    """81 frames of 1080p at 16 frames a second, smooth noise, and a mask of its middle."""
    frames, height, width = (9, 120, 160) if setting.toy else (81, 1080, 1920)
    began = time.monotonic()
    noise = torch.Generator().manual_seed(0)
    coarse = torch.rand(frames, 3, 9, 16, generator=noise)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    video = (255 * smooth).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    mask = torch.zeros_like(video)
    mask[:, height // 4 : 3 * height // 4, width // 3 : 2 * width // 3] = 255
    timing = Clip(video, Fraction(16), tuple(range(frames)), Fraction(1, 16), Path())
    write_video(_folder() / "clip.mp4", video, timing)
    write_video(_folder() / "mask.mp4", mask, timing, lossless=True)
    return time.monotonic() - began


def stages(setting: Setting) -> dict[str, Any]:
    """Plan, load, encode with the first step, the other steps, decode, and metrics with writing."""
    steps: list[float] = []

    def on_step(records: list[StepRecord]) -> None:
        synchronise(setting.device)
        steps.append(time.monotonic())

    job = kvlock.EditJob(
        _folder() / "clip.mp4",
        _folder() / "mask.mp4",
        ("a red star",),
        str(_folder() / "model"),
        METHOD,
        {"num_inference_steps": STEPS},
    )
    marks = [time.monotonic()]
    planned = kvlock.plan(job)
    marks.append(time.monotonic())
    execution = planned.execution
    backbone = kvlock.load_backbone(
        job.model,
        offload=execution.offload,
        size=planned.fit.model[1:],
        tile_vae=execution.tile_vae,
    )
    marks.append(time.monotonic())
    edits = kvlock.run(planned, on_step, backbone)
    marks += [steps[0], steps[-1], time.monotonic()]
    kvlock.write(edits, _folder() / "in-process")
    marks.append(time.monotonic())
    names = ("plan", "load", "encode and first step", "other steps", "decode", "write")
    seconds = {name: after - before for name, before, after in zip(names, marks, marks[1:])}
    chosen = {"execution": repr(execution), "notes": list(planned.notes)}
    return {**seconds, **chosen, "estimated_bytes": planned.peak_bytes, **_peaks(setting)}


def _free(setting: Setting) -> None:
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peaks(setting: Setting) -> dict[str, int]:
    if setting.device.type != "cuda":
        return {}
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def command_line(setting: Setting) -> float:
    """All of it, with the interpreter's start; the GPU is freed before."""
    _free(setting)
    folder, flags = _folder(), ["--prompt", "a red star", "--method", METHOD]
    command = [sys.executable, "-m", "kvlock.cli", "edit", str(folder / "clip.mp4")]
    command += ["--mask", str(folder / "mask.mp4"), "--model", str(folder / "model"), *flags]
    began = time.monotonic()
    subprocess.run([*command, "--steps", str(STEPS), "--out", str(folder / "out")], check=True)
    return time.monotonic() - began
