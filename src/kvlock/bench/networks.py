"""`kvlock bench score`: what networks say of the edits in a folder; weights come from the user's cache or paths."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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
    clip_l14: CLIPModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    aesthetic_head: nn.Linear | None = None
    lpips: LPIPS | None = None
    missing: dict[str, str] = field(default_factory=dict)


def load_networks(sources: Sources, device: str = "auto") -> Networks:
    """Load what is there. Raises ValueError where that is nothing."""
    place, found = resolve_device(device), Networks()

    def attempt(measures: str, load: Callable[[], None]) -> None:
        try:
            load()
        except (ValueError, OSError) as error:
            found.missing[measures] = str(error)

    def load_dino() -> None:
        found.dino = _transformer(ViTModel, sources.dino, "dino", add_pooling_layer=False).to(place)

    def load_clip_b32() -> None:
        found.clip_b32 = _transformer(CLIPModel, sources.clip_b32, "clip-b32").to(place)

    def load_clip_l14() -> None:
        model = _transformer(CLIPModel, sources.clip_l14, "clip-l14").to(place)
        found.tokenizer = _tokenizer(sources.clip_l14, model)
        found.clip_l14 = model

    def load_head() -> None:
        head = _aesthetic_head(_file(sources.aesthetic_head, "aesthetic-head"))
        if found.clip_l14 is None:
            raise ValueError("its head needs the network of --clip-l14")
        if head.in_features != found.clip_l14.config.projection_dim:
            raise ValueError(
                f"its head takes {head.in_features} features, {sources.clip_l14} gives "
                f"{found.clip_l14.config.projection_dim}; expected CLIP ViT-L/14 and its head, 768 each"
            )
        found.aesthetic_head = head

    def load_distance() -> None:
        found.lpips = load_lpips(_file(sources.lpips, "lpips")).to(place)

    attempt("subject_consistency", load_dino)
    attempt("background_consistency", load_clip_b32)
    attempt("clip_text, clip_text_region", load_clip_l14)
    attempt("aesthetic_quality", load_head)
    attempt("lpips_background", load_distance)
    if not any((found.dino, found.clip_b32, found.clip_l14, found.lpips)):
        raise ValueError("no network is there\n  " + "\n  ".join(_sentences(found)))
    return found


def _sentences(networks: Networks) -> list[str]:
    return [f"not measured: {name}: {why}" for name, why in networks.missing.items()]


def _transformer(cls: Any, source: str, flag: str, **kwargs: Any) -> Any:
    """A network of that class, all of whose weights are there: transformers would draw what is missing at random."""
    try:
        model, told = cls.from_pretrained(
            source, local_files_only=True, use_safetensors=True, output_loading_info=True, **kwargs
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source} is not there as safetensors, neither in the cache nor as a folder; give a folder as --{flag} "
            "(docs/benchmarks.md says how to make it)"
        ) from error
    if told["missing_keys"] or told["mismatched_keys"]:
        lacking = next(iter([*told["missing_keys"], *told["mismatched_keys"]]))
        raise ValueError(f"--{flag} {source} is no {cls.__name__}: it lacks {lacking}")
    return model.eval()


def _tokenizer(source: str, model: Any) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    if len(tokenizer) != model.config.text_config.vocab_size:
        raise ValueError(
            f"{source} has a tokenizer of {len(tokenizer)} words for a network of "
            f"{model.config.text_config.vocab_size}; expected the network's own tokenizer files beside it"
        )
    return tokenizer


def _file(path: str, flag: str) -> Path:
    if not path:
        raise ValueError(f"give its weights, a safetensors file, as --{flag} (docs/benchmarks.md says how to make it)")
    if not Path(path).is_file():
        raise ValueError(f"--{flag} {path}: no such file")
    return Path(path)


def _aesthetic_head(path: Path) -> nn.Linear:
    try:
        state = load_file(path)
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
    if networks.clip_l14 is not None and networks.tokenizer is not None:
        images = clip_features(networks.clip_l14, edited)
        words = text_features(networks.clip_l14, networks.tokenizer, prompt)
        crops = [clip_features(networks.clip_l14, crop) for crop in mask_crops(edited, mask)]
        values["clip_text"] = text_alignment(images, words)
        values["clip_text_region"] = text_alignment(torch.cat(crops), words)
        if networks.aesthetic_head is not None:
            values["aesthetic_quality"] = aesthetic_quality(images, networks.aesthetic_head)
    return {name: value for name, value in values.items() if not np.isnan(value)}


def score_folder(out: Path, sources: Sources, device: str = "auto") -> str:
    """Score every edit under `out`, of the clip as it was written; a metric that was there already is replaced.

    Returns what was done and what could not be measured. Raises ValueError where there is no result, or no network.
    """
    results, suite = read_results(out)
    networks, place = load_networks(sources, device), Workplace(out)
    items = {item.id: item for item in suite.items}
    for result in track(results, "score", console=Console(stderr=True)):
        item = items[result["job"]["item"]]
        source, mask = _subject(suite, item)
        edited = read_video(place.results / result["folder"] / "edited.mp4", MOST_FRAMES).frames
        clips = {"": edited, COMPOSITE: composite(source, edited, mask)}
        scores = {suffix: network_scores(networks, source, clip, mask, item.prompt) for suffix, clip in clips.items()}
        add_scores(place, result["folder"], scores, asdict(sources))
    return "\n".join([f"{len(results)} edits scored; kvlock bench table {out} shows them", *_sentences(networks)])


@lru_cache(maxsize=2)
def _subject(suite: Suite, item: Item) -> tuple[np.ndarray, np.ndarray]:
    known = load_subject(suite, item, 0).known
    return known.source, known.mask


def add_scores(place: Workplace, folder: str, scores: dict[str, dict[str, float]], by: Any) -> None:
    """Put scores beside a result's own, in its `networks.json`, with what they were measured by."""
    path = place.results / folder / "networks.json"
    with place.alone():
        before = json.loads(path.read_text()) if path.exists() else {"scores": {}, "by": {}}
        for suffix, values in scores.items():
            before["scores"].setdefault(suffix, {}).update(values)
            before["by"].update(dict.fromkeys(values, by))
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(before, indent=1, sort_keys=True))
        unfinished.replace(path)


def read_results(out: Path) -> tuple[list[dict[str, Any]], Suite]:
    """What `kvlock bench run` left under `out`. Raises ValueError where that is nothing."""
    results = Workplace(out).read() if (out / "results").is_dir() else []
    if not results:
        raise ValueError(f"{out} holds no results; run kvlock bench run first")
    record = json.loads((out / "suite.json").read_text())
    return results, Suite(record["name"], Path(record["folder"]), tuple(Item(**i) for i in record["items"]))
