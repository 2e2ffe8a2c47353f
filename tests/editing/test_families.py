"""What is another with one family than with most."""

import pytest

from kvlock.backbones.families import FAMILIES, family_named
from kvlock.editing.families import check_options, family_notes
from kvlock.methods.catalogue import METHODS, method_config


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_second_scale_needs_a_second_expert(family):
    if "transformer_2" in family.modules:
        check_options({"guidance_scale_2": 3.0}, family)
        return
    with pytest.raises(ValueError, match="guidance_scale_2 is 3.0, but .* has one expert"):
        check_options({"guidance_scale_2": 3.0}, family)
    check_options({"guidance_scale": 3.0}, family)


def test_embedded_guidance_is_said_where_there_is_no_second_branch():
    family = family_named("hunyuan-video")
    alone, two = (method_config("kv-lock", {}, {"guidance_scale": s}) for s in (1.0, 6.0))
    assert "alpha alone is scheduled" in family_notes(family, alone)[0]
    assert family_notes(family, two) == []
    assert family_notes(family_named("wan2.1"), alone) == []


def test_memory_that_is_not_known_is_said_not_to_be():
    assert (
        "memory: not known for mochi" in family_notes(family_named("mochi"), METHODS["kv-lock"])[0]
    )
