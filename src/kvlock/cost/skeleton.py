"""A model's architecture without its weights: on the meta device to count, elsewhere random to time."""

from pathlib import Path
from typing import Any

import diffusers
import torch

from kvlock.backbones.checkpoints import checkpoint_folder, family_of, model_source, read_config
from kvlock.backbones.families import Family
from kvlock.backbones.known_models import known_model
from kvlock.backbones.sampler import with_flow_shift

FLOW_MATCHING = dict(
    _class_name="UniPCMultistepScheduler",
    prediction_type="flow_prediction",
    use_flow_sigmas=True,
    flow_shift=3.0,
)


def skeleton(
    model: str,
    device: str = "meta",
    dtype: torch.dtype = torch.bfloat16,
    size: tuple[int, int] | None = None,
) -> Any:
    """The backbone of `model` without its text encoder, with the flow shift of a size (height, width).

    Only configs are read, and of a known model's not even those. Raises ValueError for a model that
    `load_backbone` would not take either.
    """
    known = known_model(model)
    if known and not known.packaged:
        steps = FLOW_MATCHING | {"flow_shift": known.spec.flow_shift(size)}
        return assembled(known.spec, known.architecture, {}, steps, device, dtype)
    if Path(model_source(model)).is_dir():
        checkpoint_folder(model)  # refuses what is not whole
    family = family_of(model)
    files = ("transformer/config", "vae/config", "scheduler/scheduler_config")
    configs = [read_config(model, f"{name}.json") for name in files]
    transformer, vae, scheduler = configs
    backbone = assembled(family, transformer, vae, scheduler, device, dtype)
    backbone.pipe.scheduler = with_flow_shift(backbone.pipe.scheduler, family.flow_shift(size))
    return backbone


def shallow(backbone: Any, repeats: int) -> Any:
    """A backbone's like on the meta device, with so many repeats of its layers."""
    depth = backbone.spec.depth
    return _changed(backbone, depth.shortened(backbone.pipe.transformer.config, repeats), "meta")


def one_layer(backbone: Any, device: str) -> Any:
    """A backbone's like with random weights, of one layer where its depth is known."""
    depth = backbone.spec.depth
    return _changed(backbone, depth.one_layer() if depth else {}, device)


def _changed(backbone: Any, changes: dict[str, Any], device: str) -> Any:
    pipe = backbone.pipe
    scheduler = _public(pipe.scheduler) | {"_class_name": type(pipe.scheduler).__name__}
    configs = _public(pipe.transformer) | changes, _public(pipe.vae), scheduler
    changed = assembled(backbone.spec, *configs, device, pipe.transformer.dtype)
    changed.max_sequence_length = backbone.max_sequence_length
    return changed


def _public(module: Any) -> dict[str, Any]:
    """A config without what diffusers notes in it, such as the fields that were left to defaults."""
    return {name: value for name, value in module.config.items() if not name.startswith("_")}


def assembled(
    family: Family,
    transformer: dict[str, Any],
    vae: dict[str, Any],
    scheduler: dict[str, Any],
    device: str,
    dtype: torch.dtype,
) -> Any:
    """The backbone of these configs, with the weights that their classes draw; none on meta."""
    classes = [getattr(diffusers, name) for name in (family.vae, family.transformer)]
    before = torch.get_default_dtype()
    try:
        with torch.device(device):
            codec = classes[0].from_config(vae).eval()
            torch.set_default_dtype(dtype)
            model = classes[1].from_config(transformer).eval()
    finally:
        torch.set_default_dtype(before)
    steps = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    pipe = getattr(diffusers, family.pipeline)(
        tokenizer=None,
        text_encoder=None,
        vae=codec,
        transformer=model,
        scheduler=steps,
    )
    return family.adapter_class()(pipe)
