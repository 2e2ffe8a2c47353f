"""Weights that the user has: a folder, or a repository in the hub's cache. Nothing is downloaded."""

from typing import Any


def load_weights(kind: Any, path: str, flag: str, example: str, device: str) -> Any:
    """A transformers class from its weights (safetensors), float32, on its device, to be read only.

    Raises ValueError where they are not at hand, or are not of that class.
    """
    from kvlock.backbones.loading import resolve_device
    from kvlock.backbones.quiet import quiet

    model_type(path, flag, example, kind.config_class.model_type)
    try:
        with quiet():
            model, report = kind.from_pretrained(
                path, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{flag} {path}: its weights cannot be read; expected a whole model.safetensors "
            f"(hf download {example})"
        ) from error
    if report["missing_keys"]:
        raise ValueError(
            f"{flag} {path}: {len(report['missing_keys'])} tensors of {kind.__name__} are missing; "
            f"download it again (hf download {example})"
        )
    return model.to(resolve_device(device)).eval()


def model_type(path: str, flag: str, example: str, *known: str) -> str:
    """What a model's config says that it is. Raises ValueError for none, and for one not in `known`."""
    from transformers import AutoConfig

    if not path:
        raise ValueError(
            f"{flag} is missing: it names weights that you have, such as from hf download {example}"
        )
    try:
        found = AutoConfig.from_pretrained(path, local_files_only=True).model_type
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{flag} {path}: there is no model; expected a folder with config.json and "
            f"model.safetensors, or a name in the hub's cache (hf download {example})"
        ) from error
    if found not in known:
        raise ValueError(
            f"{flag} {path} is of the kind {found}; expected {' or '.join(known)} (hf download {example})"
        )
    return found
