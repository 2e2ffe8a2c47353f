"""Stages 2, 4 and 7 of the GPU day: edits that have to agree."""

import gc
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_stages import Part, Setting
from kvlock.backbones.loading import backbone_of, load_backbone
from kvlock.contract.types import EditRequest
from kvlock.core.config import KVLockConfig
from kvlock.cost.estimate import centred_mask
from kvlock.methods.catalogue import PLAIN
from kvlock.methods.dropping.tokens import computed_tokens, token_sets
from kvlock.methods.edit import edit_clips
from kvlock.methods.execution import Execution
from kvlock.methods.options import with_options
from kvlock.methods.parts import Drop
from kvlock.shapes.scenes import scene_request
from modes import MODES, ONE_BATCH, ONE_BY_ONE, Mode, fast
from timing import run_of

SHORT = 6  # steps
STORES = ("device", "host")


def identities(setting: Setting) -> dict[str, Part]:
    """Stage 2, on the built-in world's own weights."""
    return {
        "plain and the stock pipeline": Part(as_stock),
        "packed and plain": Part(packed_as_plain),
        "fast here and on the CPU, where tests hold it to its slow steps": Part(fast_as_on_cpu),
    }


def _shapes(device: torch.device) -> Any:
    """In float32, with all parts on the device."""
    pipe = load_backbone("shapes", "cpu", "float32").pipe.to(device)
    backbone = backbone_of(pipe)
    backbone.decode_video = lambda latents: latents.cpu()
    return backbone


def _latents(
    backbone: Any, request: EditRequest, config: KVLockConfig, execution: Execution = ONE_BY_ONE
) -> Tensor:
    return edit_clips(backbone, [request], config, execution)[0].video


def _short(config: KVLockConfig, **options: Any) -> Any:
    return with_options(config, {"num_inference_steps": SHORT, "guidance_scale": 3.0, **options})


def compared(one: Tensor, other: Tensor) -> dict[str, Any]:
    """Whether they are equal, and how far apart."""
    distance = float((one - other).abs().max())
    return {"equal": torch.equal(one, other), "largest_difference": distance}


def as_stock(setting: Setting) -> dict[str, Any]:
    """The same latents to the bit, from diffusers' own pipeline and from plain sampling."""
    backbone, request = _shapes(setting.device), scene_request(20_000)
    inside = request.mask.numpy()
    video = request.video.numpy() / np.float32(255)
    video[inside] = 0.5  # what VACE's own inpainting shows
    stock = backbone.pipe(
        video=[video],
        mask=[np.repeat(inside[..., None], 3, axis=-1).astype(np.float32)],
        prompt=request.prompt,
        negative_prompt="",
        height=video.shape[1],
        width=video.shape[2],
        num_frames=len(video),
        num_inference_steps=SHORT,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
        max_sequence_length=backbone.max_sequence_length,
    ).frames
    return compared(_latents(backbone, request, _short(PLAIN)), stock[0].cpu())


def packed_as_plain(setting: Setting) -> dict[str, Any]:
    """A mask of the whole clip: dropping computes everything, in packed forwards."""
    backbone, request = _shapes(setting.device), scene_request(20_000)
    request = replace(request, mask=torch.ones_like(request.mask))
    packed = replace(_short(PLAIN), drop=Drop())
    euler = replace(_short(PLAIN), source=replace(PLAIN.source, background_anchor="latents"))
    return compared(_latents(backbone, request, packed), _latents(backbone, request, euler))


def fast_as_on_cpu(setting: Setting) -> dict[str, Any]:
    """The whole edit on both, which differ by rounding."""
    request, config = scene_request(20_000), _short(fast(), source_refresh=2)
    here, there = (
        _latents(_shapes(device), request, config)
        for device in (setting.device, torch.device("cpu"))
    )
    return compared(here, there)


def stores(setting: Setting) -> dict[str, Part]:
    """Stage 4, on random weights."""
    return {"hashes": Part(hashes), "hashes, launches blocking": Part(blocking_hashes, cuda=True)}


def hashes(setting: Setting) -> dict[str, Any]:
    """Of the latents of `fast`: twice with each store; one seed has to give one hash."""
    run, config = run_of(setting.model), _short(fast(), source_refresh=2)
    found = [
        (store, _hash(run.edit(config, Mode(config, Execution(source_store=store)), 0.2)[0].video))
        for store in STORES * 2
    ]
    return {"hashes": found, "equal": len({number for _, number in found}) == 1}


def _hash(latents: Tensor) -> str:
    return hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()[:16]


def blocking_hashes(setting: Setting) -> dict[str, Any]:
    """The same in a process of its own where no kernel starts before the last has ended."""
    code = f"import gpu_edits as g; g.print_hashes({setting.toy})"
    environment = {**os.environ, "CUDA_LAUNCH_BLOCKING": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def print_hashes(toy: bool) -> None:
    """For the process of `blocking_hashes`."""
    print(json.dumps(hashes(Setting(toy))))


def repeats(setting: Setting) -> dict[str, Part]:
    """Stage 7."""
    sets = {f"token sets, f={share}": Part(same_sets, (share,), cuda=True) for share in (0.05, 0.2)}
    return {**sets, "growth": Part(growth)}


def same_sets(setting: Setting, share: float) -> dict[str, bool]:
    """The tokens chosen on the GPU and on the CPU."""
    size = (3, 12, 12) if setting.toy else (21, 60, 104)
    mask = centred_mask(size, (1, 2, 2), share)[None]
    found = {}
    for context in (1.0, 0.7, 0.4):
        here, there = (
            token_sets(computed_tokens(mask.to(device), (1, 2, 2), 1)[0], context)
            for device in (setting.device, "cpu")
        )
        pairs = ((getattr(here, n).cpu(), getattr(there, n)) for n in ("edit", "source", "context"))
        found[f"context {context}"] = all(torch.equal(a, b) for a, b in pairs)
    return found


def growth(setting: Setting) -> dict[str, Any]:
    """Tensors alive, and bytes on the GPU, after three edits; all but the first are equal."""
    run = run_of(setting.model)
    found: dict[str, list[int]] = {"tensors": [], "bytes": []}
    mode = replace(MODES["fast"], execution=ONE_BATCH)
    for _ in range(3):
        run.edit(_short(mode.config, source_refresh=2), mode, 0.2)
        gc.collect()
        found["tensors"].append(sum(isinstance(x, Tensor) for x in gc.get_objects()))
        if setting.device.type == "cuda":
            found["bytes"].append(torch.cuda.memory_allocated())
    steady = all(len(set(counts[1:])) <= 1 for counts in found.values())
    return {**found, "steady": steady}
