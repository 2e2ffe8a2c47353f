"""Does a checkpoint of Wan 2.1 VACE's real width load and run? Random weights, few frames.

    python benchmarks/full_width.py [--folder DIR] [--frames 5] [--size 64] [--keep]

Writes a diffusers folder with the 1.3B configuration (random weights, bfloat16; the real VAE
configuration; a small text encoder of the real width), loads it with `kvlock.load_backbone` as any
folder, and makes one locked step.
"""

import argparse
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

import kvlock
from kvlock.backbones.known_models import known_model
from kvlock.core.config import Lock
from kvlock.shapes.checkpoint import VOCABULARY, build_tokenizer

SMALL_TEXT = UMT5Config(
    vocab_size=len(VOCABULARY), d_model=4096, d_kv=64, d_ff=512, num_layers=1, num_heads=2
)


def write_folder(folder: Path, text: UMT5Config = SMALL_TEXT, device: str = "cpu") -> None:
    """The 1.3B VACE configuration, random, drawn on `device`; a text encoder of this config."""
    before = torch.get_default_dtype()
    with torch.device(device):
        try:
            torch.set_default_dtype(torch.bfloat16)
            transformer = WanVACETransformer3DModel(**known("wan2.1-vace-1.3b"))
            encoder = UMT5EncoderModel(text)
        finally:
            torch.set_default_dtype(before)
        vae = AutoencoderKLWan()
    parts: dict[str, Any] = dict(
        tokenizer=build_tokenizer(),
        text_encoder=encoder,
        vae=vae,
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    WanVACEPipeline(**parts).save_pretrained(folder)


def known(name: str) -> dict[str, Any]:
    """The fields of a known model's transformer."""
    model = known_model(name)
    assert model
    return model.architecture


def random_request(frames: int, size: int) -> kvlock.EditRequest:
    """Noise of that size, with a corner to edit."""
    shape, noise = (frames, size, size), torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (*shape, 3), generator=noise, dtype=torch.uint8)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, : size // 2, : size // 2] = True
    return kvlock.EditRequest(video, mask, "a red star")


def main() -> None:
    """Write, load, run one step, say what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "wan-vace-1.3b-random"
    )
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    arguments = parser.parse_args()
    write_folder(arguments.folder)
    began = time.monotonic()
    backbone = kvlock.load_backbone(str(arguments.folder), dtype="bfloat16", max_sequence_length=32)
    loaded = time.monotonic()
    config = kvlock.KVLockConfig(num_inference_steps=1, lock_steps=1, lock=Lock(1.0))
    result = kvlock.edit(backbone, random_request(arguments.frames, arguments.size), config)
    done = time.monotonic()
    millions = sum(p.numel() for p in backbone.pipe.transformer.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    locked = [s for s in backbone.attention_sites(torch.zeros(())) if not s.control]
    print(f"DiT {millions:.0f} M parameters, {len(locked)} locked layers, {backbone.device}")
    took = f"load {loaded - began:.1f} s, one locked step with VAE {done - loaded:.1f} s"
    print(f"{took}, peak memory {peak:.1f} GiB")
    print(f"result {tuple(result.video.shape)}, trace {result.trace[0]}")
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(f"python {platform.python_version()}, {versions}")
    if not arguments.keep:
        shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
