"""Does a checkpoint of Wan 2.1 VACE's real width load and run? Random weights, few frames, one step.

    python benchmarks/full_width.py [--folder DIR] [--frames 5] [--size 64] [--keep]

Writes a diffusers folder with the 1.3B configuration (random weights, bfloat16; the real VAE configuration; a small
text encoder of the real width), loads it with `kvlock.load_backbone` as any folder, and makes one locked step.
"""

import argparse
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path

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
from kvlock.shapes.checkpoint import VOCABULARY, build_tokenizer


def write_folder(folder: Path) -> None:
    """The 1.3B VACE configuration, random."""
    torch.set_default_dtype(torch.bfloat16)
    transformer = WanVACETransformer3DModel(
        num_attention_heads=12,
        attention_head_dim=128,
        ffn_dim=8960,
        num_layers=30,
        vace_layers=list(range(0, 30, 2)),
    )
    torch.set_default_dtype(torch.float32)
    text = UMT5Config(
        vocab_size=len(VOCABULARY), d_model=4096, d_kv=64, d_ff=512, num_layers=1, num_heads=2
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    WanVACEPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=UMT5EncoderModel(text),
        vae=AutoencoderKLWan(),
        transformer=transformer,
        scheduler=scheduler,
    ).save_pretrained(folder)


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
    size = (arguments.frames, arguments.size, arguments.size)
    video = torch.randint(
        0, 256, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[:, : arguments.size // 2, : arguments.size // 2] = True
    config = kvlock.KVLockConfig(num_inference_steps=1, lock_steps=1, fusion_ratio=1.0)
    result = kvlock.edit(backbone, kvlock.EditRequest(video, mask, "a red star"), config)
    done = time.monotonic()
    millions = sum(p.numel() for p in backbone.pipe.transformer.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"DiT {millions:.0f} M parameters, {len(backbone.attention_sites())} locked layers, {backbone.device}"
    )
    print(
        f"load {loaded - began:.1f} s, one locked step with VAE {done - loaded:.1f} s, peak memory {peak:.1f} GiB"
    )
    print(f"result {tuple(result.video.shape)}, trace {result.trace[0]}")
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    if not arguments.keep:
        shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
