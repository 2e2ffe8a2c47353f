"""Fixtures that several rooms of the tests share. Nothing heavy is imported before it is used."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy models wait for threads more than they compute


@pytest.fixture(params=["wan", "wan-vace"])
def backbone(request):
    """A tiny random backbone of each kind."""
    from support.edits import make_backbone

    return make_backbone(request.param)


@pytest.fixture(params=["wan", "vace", "cogvideox", "hunyuan_video", "ltx", "mochi"])
def family(request):
    """A tiny random transformer of each of six families."""
    from support import families

    return getattr(families, request.param)()
