"""A model's architecture without its weights: on the meta device to count, elsewhere random to time."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from kvlock.backbones.checkpoints import (
    check_configs,
    checkpoint_folder,
    family_of,
    model_source,
    read_config,
)
from kvlock.backbones.family import Family
from kvlock.backbones.known_models import known_model
from kvlock.backbones.quiet import named, quiet
from kvlock.backbones.sampler import with_flow_shift

FLOW_MATCHING = dict(
    _class_name="UniPCMultistepScheduler",
    prediction_type="flow_prediction",
    use_flow_sigmas=True,
    flow_shift=3.0,
)


@dataclass(frozen=True)
class Configs:
    """Of a pipeline's parts, and `pipeline`: what its own says beside them."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    pipeline: dict[str, Any]


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
        family = known.spec
        steps = family.scheduler or FLOW_MATCHING
        if family.flow_shift(size):
            steps = steps | {"flow_shift": family.flow_shift(size)}
        configs = Configs(known.architecture, known.vae, steps, family.marks)
        return assembled(family, configs, device, dtype)
    if Path(model_source(model)).is_dir():
        checkpoint_folder(model)  # refuses what is not whole
    family = family_of(model)
    check_configs(model, family)
    files = ("transformer/config", "vae/config", "scheduler/scheduler_config", "model_index")
    transformer, vae, scheduler, index = (read_config(model, f"{name}.json") for name in files)
    marks = {name: index[name] for name in family.marks}
    with quiet(), named(model):
        backbone = assembled(family, Configs(transformer, vae, scheduler, marks), device, dtype)
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
    marks = {name: pipe.config[name] for name in backbone.spec.marks}
    configs = Configs(_public(pipe.transformer) | changes, _public(pipe.vae), scheduler, marks)
    changed = assembled(backbone.spec, configs, device, pipe.transformer.dtype)
    changed.max_sequence_length = backbone.max_sequence_length
    return changed


def _public(module: Any) -> dict[str, Any]:
    """A config without what diffusers notes in it, such as the fields that were left to defaults."""
    return {name: value for name, value in module.config.items() if not name.startswith("_")}


def assembled(family: Family, configs: Configs, device: str, dtype: torch.dtype) -> Any:
    """The backbone of these configs, with the weights that their classes draw; none on meta.

    Of two experts the second is as the first. Whatever else the pipeline has is not there.
    """
    codec, model = (getattr(diffusers, name) for name in (family.vae, family.transformer))
    steps = getattr(diffusers, configs.scheduler["_class_name"])
    made = {"scheduler": steps.from_config(configs.scheduler), **configs.pipeline}
    before = torch.get_default_dtype()
    try:
        with torch.device(device):
            made["vae"] = codec.from_config(configs.vae).eval()
            torch.set_default_dtype(dtype)
            made |= {n: model.from_config(configs.transformer).eval() for n in family.experts}
    finally:
        torch.set_default_dtype(before)
    pipeline = getattr(diffusers, family.pipeline)
    required = [
        name
        for name, parameter in inspect.signature(pipeline.__init__).parameters.items()
        if name != "self" and parameter.default is parameter.empty
    ]
    return family.adapter_class()(pipeline(**{name: None for name in required} | made))
