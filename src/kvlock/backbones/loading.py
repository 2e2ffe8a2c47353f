"""From a name, a hub id or a folder to a Backbone; weights are safetensors, the VAE float32."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from kvlock.backbones.checkpoints import checkpoint_folder, components, family_of, part_folder
from kvlock.backbones.diffusion import check_v_prediction
from kvlock.backbones.families import recognised_pipe
from kvlock.backbones.family import Family, Size
from kvlock.backbones.integrity import check_finite, check_keys, check_tied, check_tokenizer
from kvlock.backbones.model_files import check_config
from kvlock.backbones.placement import OFFLOADS, Offload, Placement
from kvlock.backbones.quiet import named, quiet
from kvlock.backbones.sampler import check_flow_matching, with_flow_shift

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_backbone(
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    offload: Offload = "none",
    flow_shift: float | None = None,
    max_sequence_length: int | None = None,
    tile_vae: bool = False,
    compile_blocks: bool = False,
    size: Size | None = None,
) -> Any:
    """Load a known model, a hub id, or a local folder in the standard diffusers layout.

    device: "auto", "cpu", "cuda", "cuda:1", ... dtype: "auto" (bfloat16 on a GPU, float32 on the
    CPU) or a name in DTYPES; the VAE is float32 always, since a bfloat16 encode drifts in colour.
    `offload` says which parts of the model are on the GPU together (`Placement`). `flow_shift` and
    `max_sequence_length` (text tokens) override the family's; the shift is that of clips of `size`
    (height, width), of the family's own size without it. `tile_vae` encodes and decodes tile by
    tile, in less memory. `compile_blocks` compiles the transformer's blocks (torch.compile) when
    they first run. Raises ValueError for an unknown model, device, dtype or offload, a folder that
    lacks a file or holds pickled weights, weights that are not the model's own and finite, or a
    scheduler that the family's equations do not rest on.
    """
    _check_name(model)
    model = str(model)
    place, precision = resolve_device(device), resolve_dtype(dtype, device)
    if flow_shift is not None and not flow_shift > 0:
        raise ValueError(f"flow_shift is {flow_shift}; expected above 0")
    if offload not in OFFLOADS:
        raise ValueError(f"offload is {offload!r}; expected one of {', '.join(OFFLOADS)}")
    if offload != "none" and place.type == "cpu":
        raise ValueError(
            f"offload {offload!r} moves parts of the model between CPU and GPU; with device cpu "
            "leave it off"
        )
    family = family_of(model)
    pipe = _load_pipe(family, model, precision)
    shift = family.flow_shift(size) if flow_shift is None else flow_shift
    pipe.scheduler = with_flow_shift(pipe.scheduler, shift)
    pipe.set_progress_bar_config(disable=True)
    if tile_vae:
        pipe.vae.enable_tiling()
    if compile_blocks:
        for part in family.experts:
            getattr(pipe, part).compile_repeated_blocks(dynamic=True)
    placement = Placement(pipe, place, offload)
    return family.adapter_class()(pipe, max_sequence_length, placement)


def backbone_of(pipe: Any) -> Any:
    """A Backbone on a pipeline that is loaded already, whose parts stay where they are.

    Raises ValueError for a pipeline of no known family, or a scheduler that is not its kind.
    """
    family = recognised_pipe(pipe)
    _check_scheduler(family, pipe)
    return family.adapter_class()(pipe)


def _check_name(model: object) -> None:
    if isinstance(model, (str, os.PathLike)):
        return
    raise ValueError(
        f"model is a {type(model).__name__}; expected a name from kvlock models, a hub id or a "
        "folder (for a pipeline that is loaded: kvlock.backbones.loading.backbone_of)"
    )


def _load_pipe(family: Family, model: str, dtype: torch.dtype) -> Any:
    """The pipeline on the CPU, its weights checked."""
    folder = checkpoint_folder(model)
    pipeline = getattr(diffusers, family.pipeline)
    with quiet():
        loaded = {
            "transformer": _load_part(diffusers, family.transformer, folder, "transformer", dtype),
            "vae": _load_part(diffusers, family.vae, folder, "vae", torch.float32),
            "text_encoder": _load_part(
                transformers, family.text_encoder, folder, "text_encoder", dtype
            ),
        }
        for part, name in family.modules.items():
            library, name = _library_of(name)
            own = torch.float32 if part.endswith("vae") else dtype
            loaded[part] = _load_part(library, name, folder, part, own)
        check_tied(part_folder(folder, "text_encoder"), loaded["text_encoder"])
        for part, (library, name) in components(folder).items():
            home = part_folder(folder, part)
            if part not in loaded and home.parent != folder:  # diffusers looks in the folder alone
                loaded[part] = _from_pretrained(getattr(LIBRARIES[library], name), home)
        pipe = _from_pretrained(pipeline, folder, **loaded, **dict.fromkeys(family.unused))
    check_tokenizer(folder / "tokenizer", pipe.tokenizer, pipe.text_encoder)
    with named(folder):
        _check_scheduler(family, pipe)
    return pipe


def _check_scheduler(family: Family, pipe: Any) -> None:
    """Raise ValueError for a scheduler on which the family's equations do not rest."""
    check = check_flow_matching if family.flow_matching else check_v_prediction
    check(pipe.scheduler)


def _library_of(name: str) -> tuple[Any, str]:
    """Where a class is: diffusers or transformers, or the module before a colon."""
    if ":" in name:
        module, name = name.split(":")
        return import_module(module), name
    return diffusers if hasattr(diffusers, name) else transformers, name


def _load_part(library: Any, name: str, folder: Path, part: str, dtype: torch.dtype) -> Any:
    # transformers names the tensor of another shape in a log alone, diffusers in its error.
    report = {"ignore_mismatched_sizes": True} if library is transformers else {}
    home, cls = part_folder(folder, part), getattr(library, name)
    if library is diffusers:  # transformers checks by itself
        check_config(home / "config.json", cls)
    module, info = _from_pretrained(
        cls,
        home,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        **report,
    )
    check_keys(home, info)
    check_finite(home, module)
    return module


def _from_pretrained(cls: Any, folder: Path, **settings: Any) -> Any:
    with named(folder / settings.get("subfolder", "")):
        return cls.from_pretrained(str(folder), local_files_only=True, **settings)


def resolve_device(device: str) -> torch.device:
    """The device of that name; raises ValueError where there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device {device!r} is unknown; expected auto, cpu, cuda or cuda:N"
        ) from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if place.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not supported; expected auto, cpu, cuda or cuda:N")
    return place


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """The dtype of that name; raises ValueError for another."""
    if dtype == "auto":
        return torch.float32 if resolve_device(device).type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]
