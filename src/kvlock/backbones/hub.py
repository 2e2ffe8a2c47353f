"""Files of a hub id: of the cache where they are there, fetched otherwise, or one sentence in seconds.

The cache comes first, so that a model in use does not change, nor need a network.
"""

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

PROBE_SECONDS = 4
NOT_THERE = (OSError, ValueError, EntryNotFoundError, HfHubHTTPError)


def hub_file(hub_id: str, name: str) -> Path:
    """One file. Raises ValueError where it is not to be had."""
    try:
        return Path(hf_hub_download(hub_id, name, local_files_only=True))
    except NOT_THERE:
        return _fetched(hub_id, lambda: hf_hub_download(hub_id, name))


def hub_folder(hub_id: str, check: Callable[[Path], None]) -> Path:
    """All files of a diffusers pipeline; `check` raises ValueError where one is missing."""
    from diffusers import DiffusionPipeline

    try:
        folder = Path(DiffusionPipeline.download(hub_id, local_files_only=True))
        check(folder)
        return folder
    except NOT_THERE:
        folder = _fetched(hub_id, lambda: DiffusionPipeline.download(hub_id, use_safetensors=True))
    check(folder)
    return folder


def _fetched(hub_id: str, fetch: Callable[[], object]) -> Path:
    _check_reachable(hub_id)
    try:
        return Path(str(fetch()))
    except NOT_THERE as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"model {hub_id!r} could not be fetched from the hub: {said}") from error


def _check_reachable(hub_id: str) -> None:
    """Raise ValueError where nothing can be fetched; the hub library's own tries take longer."""
    missing = f"{hub_id} is not, or not whole, in the cache {constants.HF_HUB_CACHE}"
    remedy = f"type hf download {hub_id} where there is a network, or give a folder"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"HF_HUB_OFFLINE is set, so the hub is offline, and {missing}; unset it, or {remedy}"
        )
    probe = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(probe, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the hub {constants.ENDPOINT} cannot be reached, and {missing}; {remedy}"
        ) from error
