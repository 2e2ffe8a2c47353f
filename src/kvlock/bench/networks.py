"""`kvlock bench score`: what networks say of the edits in a folder; weights come from the user's
cache or paths.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase, ViTModel

from kvlock.backbones.loading import resolve_device
from kvlock.bench.results import add_scores, read_results
from kvlock.bench.scores import Reference, with_composite
from kvlock.bench.subjects import MOST_FRAMES, load_subject
from kvlock.bench.suite import Item, Suite
from kvlock.media.video import read_video
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
from kvlock.work.folder import JobFolder


@dataclass(frozen=True)
class Sources:
    """Where each network is: a hub id that is in the user's cache, or a path. Nothing is
    downloaded.
    """

    dino: str = "facebook/dino-vitb16"
    clip_b32: str = "openai/clip-vit-base-patch32"
    clip_l14: str = "openai/clip-vit-large-patch14"
    aesthetic_head: str = ""
    lpips: str = ""


@dataclass
class Networks:
    """Those that could be loaded, and why the others could not: what they would have measured ->
    one sentence.
    """

    dino: ViTModel | None = None
    clip_b32: CLIPModel | None = None
    clip_l14: CLIPModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    aesthetic_head: nn.Linear | None = None
    lpips: LPIPS | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """What is not measured, and why."""
        return [f"not measured: {name}: {why}" for name, why in self.missing.items()]


def load_networks(sources: Sources, device: str = "auto") -> Networks:
    """Load what is there. Raises ValueError where that is nothing."""
    on, found = resolve_device(device), Networks()

    def attempt(measures: str, load: Callable[[], None]) -> None:
        try:
            load()
        except (ValueError, OSError) as error:
            found.missing[measures] = str(error)

    def load_dino() -> None:
        found.dino = _transformer(ViTModel, sources.dino, "dino", add_pooling_layer=False).to(on)

    def load_clip_b32() -> None:
        found.clip_b32 = _transformer(CLIPModel, sources.clip_b32, "clip-b32").to(on)

    def load_clip_l14() -> None:
        model = _transformer(CLIPModel, sources.clip_l14, "clip-l14").to(on)
        found.tokenizer = _tokenizer(sources.clip_l14, model)
        found.clip_l14 = model

    def load_head() -> None:
        path = _file(sources.aesthetic_head, "aesthetic-head")
        found.aesthetic_head = _fitting_head(path, sources.clip_l14, found.clip_l14)

    def load_distance() -> None:
        found.lpips = load_lpips(_file(sources.lpips, "lpips")).to(on)

    attempt("subject_consistency", load_dino)
    attempt("background_consistency", load_clip_b32)
    attempt("clip_text, clip_text_region", load_clip_l14)
    attempt("aesthetic_quality", load_head)
    attempt("lpips_background", load_distance)
    if not any((found.dino, found.clip_b32, found.clip_l14, found.lpips)):
        raise ValueError("no network is there\n  " + "\n  ".join(found.sentences))
    return found


def _transformer(cls: Any, source: str, flag: str, **settings: Any) -> Any:
    """A network of that class, all of whose weights are there: transformers would draw what is
    missing at random.
    """
    try:
        model, loading = cls.from_pretrained(
            source,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source} is not there as safetensors, neither in the cache nor as a folder; "
            f"give a folder as --{flag} (docs/benchmarks.md says how to make it)"
        ) from error
    lacking = [*loading["missing_keys"], *loading["mismatched_keys"]]
    if lacking:
        raise ValueError(f"--{flag} {source} is no {cls.__name__}: it lacks {lacking[0]}")
    return model.eval()


def _tokenizer(source: str, model: Any) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    vocabulary = model.config.text_config.vocab_size
    if len(tokenizer) != vocabulary:
        raise ValueError(
            f"{source} has a tokenizer of {len(tokenizer)} words for a network of {vocabulary}; "
            "expected the network's own tokenizer files beside it"
        )
    return tokenizer


def _file(path: str, flag: str) -> Path:
    if not path:
        raise ValueError(
            f"give its weights, a safetensors file, as --{flag} "
            "(docs/benchmarks.md says how to make it)"
        )
    if not Path(path).is_file():
        raise ValueError(f"--{flag} {path}: no such file")
    return Path(path)


def _fitting_head(path: Path, source: str, network: CLIPModel | None) -> nn.Linear:
    head = _linear_head(path)
    if network is None:
        raise ValueError("its head needs the network of --clip-l14")
    features = network.config.projection_dim
    if head.in_features != features:
        raise ValueError(
            f"its head takes {head.in_features} features, {source} gives {features}; "
            "expected CLIP ViT-L/14 and its head, 768 each"
        )
    return head


def _linear_head(path: Path) -> nn.Linear:
    try:
        state = load_file(path)
        head = nn.Linear(state["weight"].shape[1], 1)
        head.load_state_dict(state)
    except (
        Exception
    ) as error:  # safetensors raises its own kind for each way in which a file is none
        expected = "weight [1, D] and bias [1]"
        raise ValueError(
            f"--aesthetic-head {path} is no linear head: expected {expected}"
        ) from error
    return head.requires_grad_(False)


def network_scores(
    networks: Networks, source: Tensor, edited: Tensor, mask: Tensor, prompt: str
) -> dict[str, float]:
    """Every metric whose network is there, of one edited clip; one that cannot be measured is left
    out.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W].
    """
    values: dict[str, float] = {}
    if networks.lpips is not None:
        values["lpips_background"] = lpips_background(networks.lpips, source, edited, mask)
    if networks.dino is not None:
        features = dino_features(networks.dino, edited)
        values["subject_consistency"] = frame_consistency(features)
    if networks.clip_b32 is not None:
        features = clip_features(networks.clip_b32, edited)
        values["background_consistency"] = frame_consistency(features)
    if networks.clip_l14 is not None and networks.tokenizer is not None:
        images = clip_features(networks.clip_l14, edited)
        words = text_features(networks.clip_l14, networks.tokenizer, prompt)
        regions = [clip_features(networks.clip_l14, crop) for crop in mask_crops(edited, mask)]
        values["clip_text"] = text_alignment(images, words)
        values["clip_text_region"] = text_alignment(torch.cat(regions), words)
        if networks.aesthetic_head is not None:
            values["aesthetic_quality"] = aesthetic_quality(images, networks.aesthetic_head)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def score_folder(out: Path, sources: Sources, device: str = "auto") -> str:
    """Score every edit under `out`, of the clip as it was written; a metric that was there already
    is replaced.

    Returns what was done and what could not be measured. Raises ValueError where there is no
    result, or no network.
    """
    suite, results = read_results(out)
    networks, folder = load_networks(sources, device), JobFolder(out)
    items = {item.id: item for item in suite.items}
    for result in track(results, "score", console=Console(stderr=True)):
        item = items[result.item]
        known = _known(suite, item)
        clips = with_composite(read_video(result.video, MOST_FRAMES).frames, known)
        scores = {
            suffix: network_scores(networks, known.source, clip, known.mask, item.prompt)
            for suffix, clip in clips.items()
        }
        add_scores(folder, result, scores, asdict(sources))
    done = f"{len(results)} edits scored; kvlock bench table {out} shows them"
    return "\n".join([done, *networks.sentences])


@lru_cache(maxsize=2)
def _known(suite: Suite, item: Item) -> Reference:
    return load_subject(suite, item, 0).known
