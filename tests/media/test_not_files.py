"""Pipes, sockets and devices are refused, and never waited for."""

import os
import socket
from pathlib import Path

import pytest

from kvlock.media.clip import BadVideoError
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def listening(path: Path) -> Path:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return path


KINDS = [(pipe, "pipe"), (device, "device"), (listening, "socket")]


@pytest.mark.parametrize("make, kind", KINDS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_as_a_clip(tmp_path, make, kind, name):
    with pytest.raises(BadVideoError, match=f"it is a {kind}; expected a file or a folder"):
        read_video(make(tmp_path / name), 99)


@pytest.mark.parametrize("make, kind", KINDS)
@pytest.mark.parametrize("name", ["mask.png", "mask.npy", "mask.mp4", "mask.jpg"])
def test_as_a_mask(tmp_path, make, kind, name):
    with pytest.raises(BadVideoError, match=f"it is a {kind}; expected"):
        read_mask(make(tmp_path / name), 1, 8, 8)


@pytest.mark.parametrize("make, kind", KINDS)
def test_as_a_frame(tmp_path, make, kind):
    make(tmp_path / "0.png")
    with pytest.raises(BadVideoError, match=f"0.png: it is a {kind}; expected"):
        read_video(tmp_path, 99)
    with pytest.raises(BadVideoError, match=f"0.png: it is a {kind}; expected"):
        read_mask(tmp_path, 1, 8, 8)
