"""Files of a hub id: of the cache where they are there, fetched otherwise, or one sentence in seconds.

The cache comes first, so that a model in use does not change, nor need a network.
"""

import errno
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging

PROBE_SECONDS = 3
PROXY_FAILED = (407, 502, 503, 504)
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
        with _without_retry_lines():
            return Path(str(fetch()))
    except Exception as error:  # of the hub's library and of its HTTP client, in many kinds
        raise ValueError(f"model {hub_id!r} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why a model could not be fetched, and what to do."""
    if isinstance(error, GatedRepoError):
        return "asks for consent on its page at the hub; give it, then type hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return "is not at the hub, or is private; look at its name, or type hf auth login"
    if isinstance(error, EntryNotFoundError):
        return "lacks a file of a diffusers folder at the hub; give another model"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"has no room in {constants.HF_HUB_CACHE}; make some, or set HF_HOME"
    kind = type(error).__name__
    return f"could not be fetched from the hub ({kind}); try again, what is there already is kept"


def _check_reachable(hub_id: str) -> None:
    """Raise ValueError where nothing can be fetched; the hub library's own tries take longer."""
    missing = f"{hub_id} is not, or not whole, in the cache {constants.HF_HUB_CACHE}"
    remedy = f"type hf download {hub_id} where there is a network, or give a folder"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"HF_HUB_OFFLINE is set, so the hub is offline, and {missing}; unset it, or {remedy}"
        )
    if not _answers(constants.ENDPOINT):
        raise ValueError(f"the hub {constants.ENDPOINT} cannot be reached, and {missing}; {remedy}")


def _answers(address: str) -> bool:
    """Whether something speaks HTTP there within PROBE_SECONDS, and no proxy alone."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code not in PROXY_FAILED)
        except Exception:  # of addresses, of names, of sockets, of what is no HTTP
            answers.append(False)

    # The time limit of a socket holds for no name server, nor for an answer drop by drop.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    return answers == [True]


@contextmanager
def _without_retry_lines() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
