"""What an edit's bytes depend on besides its arguments; no torch here."""

import platform
from importlib.metadata import version

from kvlock import __version__

LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "av",
    "numpy",
    "opencv-python-headless",
    "scipy",
    "pillow",
)


def versions() -> dict[str, str]:
    """The versions of kvlock, python and the libraries that touch pixels."""
    return {"kvlock": __version__, "python": platform.python_version()} | {
        name: version(name) for name in LIBRARIES
    }
