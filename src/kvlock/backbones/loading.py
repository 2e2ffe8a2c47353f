"""From a name, a hub id or a folder to a Backbone; weights are safetensors, the VAE float32."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, WanPipeline, WanVACEPipeline

from kvlock.backbones.known_models import KNOWN_MODELS, SHAPES_FOLDER, known_model
from kvlock.backbones.sampler import check_flow_matching, with_flow_shift
from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.core.protocols import Backbone

FAMILIES = {"WanPipeline": (WanPipeline, WanBackbone), "WanVACEPipeline": (WanVACEPipeline, WanVACEBackbone)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 100_000_000  # bytes of a file that are read to tell it from another
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def load_backbone(
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    offload: bool = False,
    flow_shift: float | None = None,
    max_sequence_length: int | None = None,
    tile_vae: bool = False,
    compile_blocks: bool = False,
) -> Backbone:
    """Load a known model, a hub id, or a local folder in the standard diffusers layout.

    device: "auto", "cpu", "cuda", "cuda:1", ... dtype: "auto" (bfloat16 on a GPU, float32 on the CPU) or a name in
    DTYPES; the VAE is float32 always, since a bfloat16 encode drifts in colour. `offload` keeps each component on the
    CPU until it runs (diffusers' model CPU offload). `flow_shift` overrides the checkpoint's timestep shift,
    `max_sequence_length` (text tokens) the known model's, or the pipelines' 512. `tile_vae` encodes and decodes tile
    by tile, in less memory. `compile_blocks` compiles the transformer's blocks (torch.compile) when they first run.
    Raises ValueError for an unknown model, device or dtype, a folder that lacks a component or holds pickled weights,
    or a scheduler that is not flow matching.
    """
    place, precision = resolve_device(device), resolve_dtype(dtype, device)
    if flow_shift is not None and not flow_shift > 0:
        raise ValueError(f"flow_shift is {flow_shift}; expected above 0")
    if offload and place.type == "cpu":
        raise ValueError("offload moves components between CPU and GPU; with --device cpu leave it off")
    known = known_model(model)
    source = model_source(model)
    pipeline_class, backbone_class = FAMILIES[pipeline_name(model, source)]
    vae = _from_pretrained(AutoencoderKLWan, source, subfolder="vae", dtype=torch.float32)
    pipe = _from_pretrained(pipeline_class, source, vae=vae, dtype=precision)
    check_flow_matching(pipe.scheduler)
    own_shift = known.flow_shift if known else None
    pipe.scheduler = with_flow_shift(pipe.scheduler, own_shift if flow_shift is None else flow_shift)
    pipe.set_progress_bar_config(disable=True)
    if tile_vae:
        vae.enable_tiling()
    if compile_blocks:
        pipe.transformer.compile_repeated_blocks(dynamic=True)
    if offload:
        pipe.enable_model_cpu_offload(device=place)
    else:
        pipe.to(place)
    return backbone_class(pipe, max_sequence_length or (known.max_sequence_length if known else 512))


def resolve_device(device: str) -> torch.device:
    """The device of that name; raises ValueError where there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is unknown; expected auto, cpu, cuda or cuda:N") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
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


def weights_digest(model: str) -> str:
    """What tells a model's weights from those that stood under the same name before; empty for a hub id.

    Of the bytes where they are few (the built-in models), of names and sizes where they are many.
    """
    folder = Path(model_source(model))
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}".encode())
        if size < SMALL:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def model_source(model: str) -> str:
    """A folder or hub id that diffusers can load."""
    known = known_model(model)
    if known and known.packaged:
        folder = files("kvlock") / SHAPES_FOLDER / known.source
        if not folder.is_dir():
            raise ValueError(f"model {model!r} comes with kvlock, but {folder} is not there; install kvlock again")
        return str(folder)
    if known:
        return known.source
    if Path(model).is_dir() or ("/" in model and not model.startswith((".", "/", "~"))):
        return model
    names = ", ".join(m.name for m in KNOWN_MODELS)
    raise ValueError(f"model {model!r} is neither a known name ({names}), nor a folder, nor a hub id (owner/name)")


def pipeline_name(model: str, source: str) -> str:
    """The pipeline class of a model that can be edited with, and is whole and safe where it is a folder."""
    folder = Path(source) if Path(source).is_dir() else None
    index = _folder_index(model, folder) if folder else _hub_index(model, source)
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise ValueError(f"model {model!r} is a {name}; kvlock can edit with {', '.join(FAMILIES)}")
    two_experts = (index.get("transformer_2") or [None])[0] or index.get("boundary_ratio")
    if two_experts or index.get("expand_timesteps"):
        raise ValueError(f"model {model!r} is a Wan 2.2 checkpoint; kvlock can edit with Wan 2.1 only so far")
    if folder:
        _check_components(model, folder, index)
    return name


def _hub_index(model: str, source: str) -> dict:
    try:
        return dict(DiffusionPipeline.load_config(source))
    except (OSError, ValueError) as error:
        raise ValueError(f"model {model!r} could not be fetched from the hub: {_first_line(error)}") from error


def _folder_index(model: str, folder: Path) -> dict:
    try:
        return json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model folder {model!r} has no readable model_index.json; expected a diffusers folder"
        ) from error


def _check_components(model: str, folder: Path, index: dict) -> None:
    needed = [n for n, value in index.items() if isinstance(value, list) and value[0]]
    for component in needed:
        if not (folder / component).is_dir():
            raise ValueError(f"model folder {model!r} lacks its component {component!r}; download the whole folder")
    for component in ("transformer", "vae", "text_encoder"):
        names = [f.name for f in (folder / component).glob("*")]
        if not any(n.endswith(".safetensors") for n in names):
            pickle = next((n for n in names if n.endswith(PICKLES)), None)
            found = f"pickled weights ({pickle}), which can run code" if pickle else "no weights"
            raise ValueError(f"model folder {model!r} has {found} in {component}/; expected .safetensors")


def _from_pretrained(cls: type, source: str, **kwargs):
    try:
        return cls.from_pretrained(source, use_safetensors=True, local_files_only=Path(source).is_dir(), **kwargs)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(f"model {source!r} could not be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
