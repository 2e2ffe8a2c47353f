"""Weights that were loaded: all there, none besides, all finite, and the text encoder's tied."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kvlock.backbones.checkpoints import weight_map

FLAWS = {
    "missing_keys": "lacks the tensor",
    "unexpected_keys": "holds a tensor that the model does not have,",
    "mismatched_keys": "holds in another shape the tensor",
}


def check_keys(component: Path, loading_info: dict[str, Any]) -> None:
    """Raise ValueError, with file and tensor, unless the weights are the model's own.

    loading_info: what `from_pretrained` gives with output_loading_info=True.
    """
    for kind, flaw in FLAWS.items():
        found = sorted(key if isinstance(key, str) else key[0] for key in loading_info[kind])
        if found:
            others = f" and {len(found) - 1} more" if len(found) > 1 else ""
            file = _file_of(component, found[0])
            raise ValueError(f"{file} {flaw} {found[0]!r}{others}; download it again")


def check_finite(component: Path, model: nn.Module) -> None:
    """Raise ValueError, with file and tensor, where a weight is NaN or infinite; one pass over all."""
    for name, tensor in _weights(model):
        if not _is_finite(tensor):
            file = _file_of(component, name)
            raise ValueError(f"{file} holds NaN or infinity in {name!r}; download it again")


def check_tied(component: Path, text_encoder: nn.Module) -> None:
    """Raise ValueError where a T5's embedding is not its shared one.

    transformers 5.0 to 5.2 leave it random where the config says tie_word_embeddings=false, as
    Wan's does (transformers#43880).
    """
    shared, encoder = getattr(text_encoder, "shared", None), getattr(text_encoder, "encoder", None)
    own = getattr(encoder, "embed_tokens", None)
    if shared is not None and own is not None and own.weight is not shared.weight:
        raise ValueError(
            f"the text encoder of {component} was loaded without its embedding, which this version "
            "of transformers leaves random; type pip install -U 'transformers>=5.3'"
        )


def check_tokenizer(component: Path, tokenizer: Any, text_encoder: nn.Module) -> None:
    """Raise ValueError for a tokenizer that cannot pad, or has words that the text encoder has not."""
    if tokenizer.pad_token is None:
        raise ValueError(f"{component} names no pad_token, which prompts need; download it again")
    words, known = len(tokenizer), text_encoder.get_input_embeddings().num_embeddings
    if words > known:
        raise ValueError(
            f"{component} has {words} words, its text encoder {known}; download both again"
        )


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(wide))


def _file_of(component: Path, name: str) -> Path:
    """The file that a tensor is in, or should be."""
    sharded = weight_map(component)
    if sharded:
        return component / sharded.get(name, "")
    return min(component.glob("*.safetensors"), key=lambda path: len(path.name))
