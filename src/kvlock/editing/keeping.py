"""A denoised edit on the disk, from the last step until everything is written."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kvlock.contract.types import StepRecord
from kvlock.editing.clips import Denoised
from kvlock.editing.destination import KEPT, RUN
from kvlock.editing.edit import EditPlan
from kvlock.editing.outputs import record_of
from kvlock.media.files import write_json

LATENTS = "latents.safetensors"
UNFINISHED = "keeping"


def keep(work: Path, planned: EditPlan, denoised: Denoised) -> list[str]:
    """Write latents, traces and the job's record to the folder KEPT in `work`, together or not at all.

    An edit that cannot be kept goes on without; gives a sentence that says so. The clip and the
    mask must have paths.
    """
    record, folder = record_of(planned), work / UNFINISHED
    latents = {"edits": denoised.edits, "source": denoised.source}
    traces = json.dumps([[asdict(r) for r in trace] for trace in denoised.traces])
    try:
        folder.mkdir()
        write_json(folder / RUN, record)
        stored = {name: value.cpu().contiguous() for name, value in latents.items()}
        save_file(stored, folder / LATENTS, {"traces": traces})
        folder.rename(work / KEPT)
    except (OSError, SafetensorError) as error:
        return [f"warning: the latents could not be kept while the edit is written ({error})"]
    return []


def read_kept(work: Path, device: torch.device) -> Denoised:
    """What `keep` wrote. Raises ValueError where it is damaged."""
    path = work / KEPT / LATENTS
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            traces = _traces(json.loads(file.metadata()["traces"]))
            return Denoised(file.get_tensor("edits"), file.get_tensor("source"), traces)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); make the edit again") from error


def _traces(lists: Sequence[Sequence[dict]]) -> tuple[tuple[StepRecord, ...], ...]:
    return tuple(tuple(StepRecord(**record) for record in trace) for trace in lists)
