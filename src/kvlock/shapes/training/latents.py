"""The clips that the transformers see, encoded once and kept in shards of safetensors."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor

from kvlock.shapes.render import render_mask, render_scene
from kvlock.shapes.scene import SceneEdit, random_edit
from kvlock.shapes.training.vae import TRAINING_SEEDS

SHARD = 200
GROUP = 8  # clips in one call of the VAE


@dataclass(frozen=True)
class Bucket:
    """Clips of one size: `share` of all clips and of all steps, `batch` clips a step.

    The batches are chosen so that a step of any bucket takes about as long; `first_seed` keeps
    the buckets' scenes apart.
    """

    name: str
    frames: int
    height: int
    width: int
    share: float
    batch: int
    first_seed: int

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Frames, height and width of the latents, and with patches of (1, 1, 1) of the tokens."""
        return (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8

    def edits(self, clips: range) -> list[SceneEdit]:
        """The edits that belong to these numbers."""
        return [random_edit(self.first_seed + i, aspect=self.width / self.height) for i in clips]


BUCKETS = (
    Bucket("9x96x96", 9, 96, 96, 0.8, 8, TRAINING_SEEDS),
    Bucket("33x96x96", 33, 96, 96, 0.1, 3, TRAINING_SEEDS + 10_000_000),
    Bucket("9x96x128", 9, 96, 128, 0.1, 6, TRAINING_SEEDS + 20_000_000),
)


def clips_in(bucket: Bucket, clips: int) -> int:
    """The bucket's part of `clips`, in whole shards."""
    return max(1, round(clips * bucket.share / SHARD)) * SHARD


def training_mask(edit: SceneEdit, seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """Where the edit may happen, bool [F, H, W], as people draw it.

    Mostly the edit's own mask; sometimes grown, its bounding box, or tight around what changes.
    """
    rng = np.random.default_rng(seed)
    mask = render_mask(edit, frames, height, width)
    style = rng.random()
    if style < 0.15:
        return _grown(mask, int(rng.integers(1, 7)))
    if style < 0.25:
        return mask.any(axis=1, keepdims=True) & mask.any(axis=2, keepdims=True)
    if style < 0.35:
        clips = [render_scene(s, frames, height, width) for s in (edit.source, edit.target)]
        return _grown((clips[0] != clips[1]).any(axis=-1), int(rng.integers(1, 4)))
    return mask


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    wide = F.max_pool2d(torch.from_numpy(mask).float(), 2 * reach + 1, stride=1, padding=reach)
    return wide.numpy() > 0


def object_tokens(edit: SceneEdit, bucket: Bucket) -> np.ndarray:
    """The latent positions that any object of the target touches, bool [f, h, w]."""
    frames, height, width = bucket.latent_size
    pixels = np.zeros((bucket.frames, bucket.height, bucket.width), dtype=bool)
    for shape in edit.target.shapes:
        disc = SceneEdit("recolour", edit.source, edit.target, shape)
        pixels |= render_mask(disc, bucket.frames, bucket.height, bucket.width)
    padded = np.concatenate(
        [np.repeat(pixels[:1], 3, axis=0), pixels]
    )  # the first frame stands alone
    return padded.reshape(frames, 4, height, 8, width, 8).any(axis=(1, 3, 5))


def mask_channels(mask: Tensor, stride: int = 8, temporal: int = 4) -> Tensor:
    """A VACE control's mask channels, bool [F, H, W] -> bool [64, f, h, w].

    As WanVACEPipeline.prepare_masks makes them.
    """
    frames, height, width = mask.shape
    rows, columns = height // stride, width // stride
    blocks = mask.float().view(frames, rows, stride, columns, stride).permute(2, 4, 0, 1, 3)
    size = ((frames + temporal - 1) // temporal, rows, columns)
    return F.interpolate(blocks.flatten(0, 1)[None], size=size, mode="nearest-exact")[0] > 0


def encode_clips(vae_folder: Path, folder: Path, clips: int, device: str) -> None:
    """Encode what is missing of `clips` training edits; on the CPU each core takes its own shards.

    Two single threads encode twice what two threads together do while another program has a core.
    """
    jobs = [
        (vae_folder, folder / bucket.name / f"{shard:04d}.safetensors", bucket, shard, device)
        for bucket in BUCKETS
        for shard in range(clips_in(bucket, clips) // SHARD)
    ]
    jobs = [job for job in jobs if not job[1].exists()]
    workers = min(torch.get_num_threads(), len(jobs) // 3) if device == "cpu" else 1
    if workers < 2:
        for job in jobs:
            _encode_shard(*job)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done, _ in enumerate(pool.map(_encode_shard, *zip(*jobs)), 1):
            print(f"latents: {done} of {len(jobs)} shards", flush=True)


@torch.no_grad()
def _encode_shard(vae_folder: Path, path: Path, bucket: Bucket, shard: int, device: str) -> None:
    """Write target, inactive [N, 16, f, h, w], mask [N, 8, f, h, w], objects [N, f, h, w]."""
    vae = _load_vae(vae_folder).to(device)
    rows: dict[str, list[Tensor]] = {"target": [], "inactive": [], "mask": [], "objects": []}
    for numbers in _groups(range(shard * SHARD, (shard + 1) * SHARD)):
        size = (bucket.frames, bucket.height, bucket.width)
        edits = bucket.edits(numbers)
        masks = [training_mask(e, bucket.first_seed + i, *size) for e, i in zip(edits, numbers)]
        targets = [render_scene(e.target, *size) / np.float32(127.5) - 1 for e in edits]
        holes = [t * ~m[..., None] for t, m in zip(targets, masks)]
        for name, clips in (("target", targets), ("inactive", holes)):
            pixels = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                rows[name].append(vae.encode(pixels).latent_dist.mode().half().cpu())
        channels = torch.stack([mask_channels(torch.from_numpy(m)) for m in masks])
        rows["mask"].append(torch.from_numpy(np.packbits(channels.numpy(), axis=1)))
        rows["objects"].append(
            torch.from_numpy(np.stack([object_tokens(e, bucket) for e in edits]))
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.cat(parts).contiguous() for name, parts in rows.items()}
    save_file(tensors, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def _groups(numbers: range) -> Iterator[range]:
    for first in range(numbers.start, numbers.stop, GROUP):
        yield range(first, min(first + GROUP, numbers.stop))


@lru_cache(maxsize=1)
def _load_vae(folder: Path) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(folder).float().eval()


def load_latents(folder: Path, clips: int) -> dict[str, dict[str, Tensor]]:
    """All shards of each bucket together, by the bucket's name."""
    return {bucket.name: _load_bucket(folder / bucket.name, bucket, clips) for bucket in BUCKETS}


def _load_bucket(folder: Path, bucket: Bucket, clips: int) -> dict[str, Tensor]:
    numbers = range(clips_in(bucket, clips) // SHARD)
    shards = [load_file(folder / f"{i:04d}.safetensors") for i in numbers]
    return {name: torch.cat([s[name] for s in shards]) for name in shards[0]}


def unpack_mask(packed: Tensor) -> Tensor:
    """uint8 [N, 8, f, h, w] -> bool [N, 64, f, h, w], undoing numpy's packbits."""
    bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8).view(1, 1, 8, 1, 1, 1)
    return (packed.unsqueeze(2) & bits).bool().flatten(1, 2)
