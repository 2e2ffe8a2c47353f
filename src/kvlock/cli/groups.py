"""How options are shown: in groups, and the advanced ones with --help-all alone."""

import sys
from typing import Annotated, Any

import tyro

HELP_ALL = "--help-all"


def advanced(kind: Any) -> Any:
    """An option that --help leaves out; --help-all shows it."""
    short_help = {"--help", "-h"} & set(sys.argv) and HELP_ALL not in sys.argv
    return Annotated[kind, tyro.conf.Suppress] if short_help else kind


def group(kind: Any) -> Any:
    """A record whose fields are flags of their own names, shown together under its name."""
    return tyro.conf.OmitArgPrefixes[kind]


def plain(kind: Any, metavar: str = "") -> Any:
    """An option whose help says all there is to say of its default."""
    return Annotated[kind, tyro.conf.arg(help_behavior_hint="", metavar=metavar or None)]
