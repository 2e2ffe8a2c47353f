"""Libraries kept quiet while a model is loaded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


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
