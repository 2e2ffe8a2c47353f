"""What a model's variance usually is at each noise level: measured once, kept beside the model."""

from pathlib import Path
from typing import Any, TypedDict

from kvlock.backbones.checkpoints import cache_folder, family_of, shipped_folder
from kvlock.backbones.known_models import known_model
from kvlock.contract.records import read_json

FILE = "kvlock-calibration.json"
Usual = tuple[tuple[float, float], ...]


class _Record(TypedDict):
    usual: Usual


def calibration_path(model: str) -> Path:
    """In the model's own folder, or for a hub id in the user's cache."""
    known = known_model(model)
    if known and known.packaged:
        return shipped_folder() / known.source / FILE
    if Path(model).is_dir():
        return Path(model) / FILE
    return cache_folder() / (known.source if known else model).replace("/", "--") / FILE


def read_usual(model: str) -> Usual:
    """(noise level, variance) pairs; empty where there is no calibration.

    Raises ValueError for a broken one.
    """
    path = calibration_path(model)
    if not path.exists():
        return ()
    return read_json(path, _Record, f"make it again with kvlock calibrate {model}")["usual"]


def model_defaults(model: str, calibrated: bool) -> dict[str, Any]:
    """The options that are the model's own; `usual` for methods that are calibrated."""
    return family_of(model).options | ({"usual": read_usual(model)} if calibrated else {})
