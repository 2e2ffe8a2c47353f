"""What is another with one family than with most, in words."""

from collections.abc import Mapping
from typing import Any

from kvlock.backbones.family import Family
from kvlock.methods.options import MethodConfig, flat


def check_options(options: Mapping[str, Any], family: Family) -> None:
    """Raise ValueError for an option that the family has nothing for."""
    scale = options.get("guidance_scale_2")
    if scale is not None and len(family.experts) < 2:
        raise ValueError(
            f"guidance_scale_2 is {scale!r}, but {family.name} has one expert; leave it out"
        )


def family_notes(family: Family, config: MethodConfig) -> list[str]:
    """What is another with this family than with most."""
    notes = []
    if not family.counted:
        notes.append(f"memory: not known for {family.name}; --offload model needs less")
    if family.embedded_guidance and flat(config)["guidance_scale"] == 1:
        notes.append(
            f"{family.name} reads its guidance as a number, so omega has nothing to act on and "
            "alpha alone is scheduled; a --guidance-scale above 1 adds an unconditional branch"
        )
    return notes
