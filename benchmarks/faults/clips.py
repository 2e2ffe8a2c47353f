"""Clips whose frames are known one by one: each bears its number in black and white."""

import io
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.stream import Disposition
from PIL import Image
from tests.support.clips import add_tone, add_video

HEIGHT, WIDTH, BITS, BLOCK = 32, 48, 6, 8
HOLE = (slice(19, 29), slice(20, 30))  # rows and columns of the mask, 11 px from the numbers
# Container, its ending, its codecs with their pixel formats, and a codec for its sound.
FORMS: list[tuple[str, str, tuple[tuple[str, str], ...], str]] = [
    ("mp4", "mp4", (("libx264", "yuv420p"), ("mpeg4", "yuv420p"), ("libx264", "yuv444p")), "aac"),
    ("mov", "mov", (("libx264", "yuv420p"), ("mjpeg", "yuvj420p"), ("png", "rgb24")), "aac"),
    ("matroska", "mkv", (("libx264", "yuv420p"), ("ffv1", "yuv420p")), "libmp3lame"),
    ("webm", "webm", (("libvpx", "yuv420p"), ("libvpx-vp9", "yuv420p")), "libopus"),
    ("avi", "avi", (("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")), "libmp3lame"),
    ("gif", "gif", (("gif", "rgb8"),), ""),
    ("mpegts", "ts", (("libx264", "yuv420p"), ("mpeg2video", "yuv420p")), "libmp3lame"),
]
Fill = Callable[[], object]


def numbered(frames: int, offset: int = 0) -> np.ndarray:
    """uint8 [F, HEIGHT, WIDTH, 3]: a gradient that moves under the frame's number."""
    t, y, x = np.mgrid[:frames, :HEIGHT, :WIDTH]
    planes = (x / WIDTH, y / HEIGHT, (x + y + 3 * t) / (WIDTH + HEIGHT + 3 * frames))
    video = (np.stack(planes, -1) * 255).astype(np.uint8)
    for number, frame in enumerate(video):
        for bit in range(BITS):
            white = (number + offset) >> bit & 1
            frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * white
    return video


def numbers(video: np.ndarray) -> list[int]:
    """What is read of the frames' numbers."""
    middle = video[:, 2 : BLOCK - 2].astype(float).mean(axis=(1, 3))
    blocks = [middle[:, b * BLOCK + 2 : (b + 1) * BLOCK - 2].mean(axis=1) for b in range(BITS)]
    return [
        sum(int(block[i] > 127) << b for b, block in enumerate(blocks)) for i in range(len(video))
    ]


def hole(frames: int) -> np.ndarray:
    """The mask, bool [F, HEIGHT, WIDTH]."""
    mask = np.zeros((frames, HEIGHT, WIDTH), bool)
    mask[:, *HOLE] = True
    return mask


def write_clip(path: Path, video: np.ndarray, rng: random.Random, form_index: int) -> list[str]:
    """A file of that container with other streams in a random order; gives the order."""
    form, _, codecs, sound = FORMS[form_index]
    codec, pix_fmt = rng.choice(codecs)
    adders: dict[str, Callable[[OutputContainer], Fill]] = {
        "film": lambda c: add_video(c, torch.from_numpy(video), codec, pix_fmt)[1]
    }
    if sound:
        adders["sound"] = lambda c: add_tone(c, sound, len(video) / 16)
    if form == "matroska":
        adders |= {"words": _words, "font": _font, "cover": _attached_cover}
    if form in ("mp4", "mov") and codec != "png":
        adders["cover"] = _cover
    if form == "mpegts":
        adders["data"] = _data
    others = [name for name in adders if name != "film"]
    order = ["film", *rng.sample(others, rng.randint(0, len(others)))]
    rng.shuffle(order)
    options = {"movflags": "faststart"} if form in ("mp4", "mov") and rng.random() < 0.5 else {}
    with av.open(str(path), "w", format=form, options=options) as container:
        for fill in [adders[name](container) for name in order]:
            fill()
    return [form, codec, *order]


def _packet(stream, content: bytes, second: float) -> av.Packet:
    packet = av.Packet(content)
    packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 1000), 100
    packet.pts = packet.dts = round(second * 1000)
    return packet


def _words(container) -> Fill:
    stream = container.add_mux_stream("subrip")
    return lambda: [container.mux(_packet(stream, b"words", s / 10)) for s in range(3)]


def _data(container) -> Fill:
    stream = container.add_data_stream("bin_data")
    return lambda: [container.mux(_packet(stream, b"data", s / 10)) for s in range(3)]


def _font(container) -> Fill:
    container.add_attachment("a.ttf", "application/x-truetype-font", b"\0\1\0\0not a font")
    return lambda: None


def _picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, form)
    return file.getvalue()


def _attached_cover(container) -> Fill:
    container.add_attachment("cover.jpg", "image/jpeg", _picture("JPEG"))
    return lambda: None


def _cover(container) -> Fill:
    stream: Any = container.add_stream("png", rate=16)
    stream.width = stream.height = 32
    stream.pix_fmt, stream.disposition = "rgb24", Disposition.attached_pic
    return lambda: container.mux(_packet(stream, _picture("PNG"), 0))


def mutated(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damaged bytes, and how."""
    content, kind = (
        bytearray(data),
        rng.choice(("flip", "flip", "cut", "zeros", "gap", "twice", "head")),
    )
    start = rng.randrange(len(content))
    length = rng.randint(1, max(1, len(content) // 8))
    if kind == "flip":
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == "cut":
        del content[start:]
    elif kind == "zeros":
        content[start : start + length] = bytes(len(content[start : start + length]))
    elif kind == "gap":
        del content[start : start + length]
    elif kind == "twice":
        content[start:start] = content[start : start + length]
    else:
        content[rng.randrange(min(200, len(content)))] ^= 1 << rng.randrange(8)
    return bytes(content), kind
