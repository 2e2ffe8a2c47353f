"""`kvlock bench score`: what networks say of the edits in a folder; weights come from the user's cache or paths."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase, ViTModel

from kvlock.backbones.loading import resolve_device
from kvlock.bench.jobs import Workplace
from kvlock.bench.runner import MOST_FRAMES, load_subject
from kvlock.bench.suite import Item, Suite
from kvlock.media.composite import composite
from kvlock.media.video import read_video
from kvlock.methods.table import COMPOSITE
from kvlock.metrics.lpips import LPIPS, load_lpips, lpips_background
from kvlock.metrics.vision import (
    aesthetic_quality,
    clip_features,
    dino_features,
    frame_consistency,
    mask_crops,
    text_alignment,
    text_features,
)


@dataclass(frozen=True)
class Sources:
    """Where each network is: a hub id that is in the user's cache, or a path. Nothing is downloaded."""

    dino: str = "facebook/dino-vitb16"
    clip_b32: str = "openai/clip-vit-base-patch32"
    clip_l14: str = "openai/clip-vit-large-patch14"
    aesthetic_head: str = ""
    lpips: str = ""


@dataclass
class Networks:
    """Those that could be loaded, and why the others could not: what they would have measured -> one sentence."""

    dino: ViTModel | None = None
    clip_b32: CLIPModel | None = None
    clip_l14: tuple[CLIPModel, PreTrainedTokenizerBase] | None = None
    aesthetic_head: nn.Linear | None = None
    lpips: LPIPS | None = None
    missing: dict[str, str] = field(default_factory=dict)


def load_networks(sources: Sources, device: str = "auto") -> Networks:
    """Load what is there."""
    place, found = resolve_device(device), Networks()

    def attempt(name: str, measures: str, load: Callable[[], Any]) -> None:
        try:
            setattr(found, name, load())
        except (ValueError, OSError) as error:
            found.missing[measures] = str(error)

    attempt("dino", "subject_consistency", lambda: _transformer(ViTModel, sources.dino, "dino").to(place))
    attempt(
        "clip_b32", "background_consistency", lambda: _transformer(CLIPModel, sources.clip_b32, "clip-b32").to(place)
    )
    attempt("clip_l14", "clip_text, clip_text_region", lambda: _clip_and_words(sources.clip_l14, place))
    attempt("aesthetic_head", "aesthetic_quality", lambda: _aesthetic_head(sources.aesthetic_head))
    attempt("lpips", "lpips_background", lambda: load_lpips(_file(sources.lpips, "lpips")).to(place))
    return found


def _transformer(cls: Any, source: str, flag: str) -> Any:
    try:
        return cls.from_pretrained(source, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source} is neither a folder with safetensors nor in the cache; type `hf download {source}`, or give "
            f"its folder as --{flag}"
        ) from error


def _clip_and_words(source: str, place: torch.device) -> tuple[CLIPModel, PreTrainedTokenizerBase]:
    model = _transformer(CLIPModel, source, "clip-l14").to(place)
    return model, AutoTokenizer.from_pretrained(source, local_files_only=True)


def _file(path: str, flag: str) -> Path:
    if not path:
        raise ValueError(f"give its weights, a safetensors file, as --{flag} (docs/benchmarks.md says how to make it)")
    if not Path(path).is_file():
        raise ValueError(f"--{flag} {path}: no such file")
    return Path(path)


def _aesthetic_head(path: str) -> nn.Linear:
    file = _file(path, "aesthetic-head")
    try:
        state = load_file(file)
        head = nn.Linear(state["weight"].shape[1], 1)
        head.load_state_dict(state)
    except Exception as error:  # safetensors raises its own kind for each way in which a file is none
        raise ValueError(f"--aesthetic-head {path} is no linear head: expected weight [1, D] and bias [1]") from error
    return head.requires_grad_(False)


def network_scores(
    networks: Networks, source: np.ndarray, edited: np.ndarray, mask: np.ndarray, prompt: str
) -> dict[str, float]:
    """Every metric whose network is there, of one edited clip; one that cannot be measured is left out."""
    values: dict[str, float] = {}
    if networks.lpips is not None:
        values["lpips_background"] = lpips_background(networks.lpips, source, edited, mask)
    if networks.dino is not None:
        values["subject_consistency"] = frame_consistency(dino_features(networks.dino, edited))
    if networks.clip_b32 is not None:
        values["background_consistency"] = frame_consistency(clip_features(networks.clip_b32, edited))
    if networks.clip_l14 is not None:
        model, tokenizer = networks.clip_l14
        images, words = clip_features(model, edited), text_features(model, tokenizer, prompt)
        crops = [clip_features(model, crop) for crop in mask_crops(edited, mask)]
        values["clip_text"] = text_alignment(images, words)
        values["clip_text_region"] = text_alignment(torch.cat(crops), words)
        if networks.aesthetic_head is not None:
            values["aesthetic_quality"] = aesthetic_quality(images, networks.aesthetic_head)
    return {name: value for name, value in values.items() if not np.isnan(value)}


def score_folder(out: Path, sources: Sources, device: str = "auto") -> str:
    """Score every edit under `out`, of the clip as it was written; what is measured already is kept.

    Returns what was done and what could not be measured. Raises ValueError where there is no result, or no network.
    """
    results, suite = read_results(out)
    networks = load_networks(sources, device)
    if len(networks.missing) == 5:
        raise ValueError("no network is there\n  " + "\n  ".join(f"{k}: {v}" for k, v in networks.missing.items()))
    items = {item.id: item for item in suite.items}
    for result in track(results, "score", console=Console(stderr=True)):
        _score_one(out, suite, items[result["job"]["item"]], result, networks)
    left_out = [f"not measured: {name}: {why}" for name, why in networks.missing.items()]
    return "\n".join([f"{len(results)} edits scored; kvlock bench table {out} shows them", *left_out])


def _score_one(out: Path, suite: Suite, item: Item, result: dict[str, Any], networks: Networks) -> None:
    folder = out / "results" / result["folder"]
    source, mask = _subject(suite, item)
    edited = read_video(folder / "edited.mp4", MOST_FRAMES).frames
    clips = {"": edited, COMPOSITE: composite(source, edited, mask)}
    scores = {suffix: network_scores(networks, source, clip, mask, item.prompt) for suffix, clip in clips.items()}
    add_scores(folder, scores)


@lru_cache(maxsize=2)
def _subject(suite: Suite, item: Item) -> tuple[np.ndarray, np.ndarray]:
    known = load_subject(suite, item, 0).known
    return known.source, known.mask


def add_scores(folder: Path, scores: dict[str, dict[str, float]]) -> None:
    """Put scores beside a result's own, in its `networks.json`, whole or not at all."""
    path = folder / "networks.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    merged = {suffix: before.get(suffix, {}) | scores.get(suffix, {}) for suffix in {*before, *scores}}
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(merged, indent=1, sort_keys=True))
    unfinished.replace(path)


def read_results(out: Path) -> tuple[list[dict[str, Any]], Suite]:
    """What `kvlock bench run` left under `out`. Raises ValueError where that is nothing."""
    results = Workplace(out).read() if (out / "results").is_dir() else []
    if not results:
        raise ValueError(f"{out} holds no results; run kvlock bench run first")
    record = json.loads((out / "suite.json").read_text())
    return results, Suite(record["name"], Path(record["folder"]), tuple(Item(**i) for i in record["items"]))
