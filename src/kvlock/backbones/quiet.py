"""Libraries kept quiet while a model is loaded, and what they raise as a sentence."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def named(model: str | Path) -> Iterator[None]:
    """Whatever a config or a file that makes no sense lets a library raise, as a ValueError."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        said = re.sub(r"\b\w+Error: ", "", said.split(". ")[0])
        raise ValueError(f"model {str(model)!r} could not be loaded: {said}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no bars of diffusers and transformers; their settings are put back afterwards."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for lib in libraries:
                lib.set_verbosity_error()
                lib.disable_progress_bar()
            yield
    finally:
        for lib, (verbosity, bars) in zip(libraries, before):
            lib.set_verbosity(verbosity)
            if bars:
                lib.enable_progress_bar()
