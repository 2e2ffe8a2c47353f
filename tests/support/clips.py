"""Clips to write and read, and files of every kind made by PyAV alone."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from kvlock.media.video import BadVideoError, Clip, read_video

REAL_CLIPS = Path(__file__).parents[3] / "shared" / "clips"
RATE, SAMPLES = 16, 48000


def smooth(frames: int = 9, height: int = 48, width: int = 64) -> Tensor:
    """A gradient that moves, uint8 [F, H, W, 3]."""
    t, y, x = np.mgrid[:frames, :height, :width]
    planes = (x / width, y / height, (x + y + 3 * t) / (width + height + 3 * frames))
    return torch.from_numpy((np.stack(planes, -1) * 255).astype(np.uint8))


def noisy(frames: int = 9, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Noise, uint8 [F, H, W, 3]."""
    shape = (frames, height, width, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def flat(colour: tuple[int, int, int], frames: int = 3) -> Tensor:
    """One colour, uint8 [F, 48, 64, 3]."""
    return torch.tensor(colour, dtype=torch.uint8).expand(frames, 48, 64, 3).contiguous()


def like(count: int, rate: Fraction | int = RATE, times=None, time_base=None) -> Clip:
    """Times for a clip that comes from no file."""
    times = tuple(times or range(count))
    return Clip(smooth(1), Fraction(rate), times, time_base or 1 / Fraction(rate), Path("nowhere"))


def video_frames(frames: Tensor | Sequence[av.VideoFrame]) -> list[av.VideoFrame]:
    """RGB frames for an encoder; ready ones stay."""
    if not isinstance(frames, Tensor):
        return list(frames)
    return [av.VideoFrame.from_ndarray(frame.numpy()) for frame in frames]


def add_video(container, frames, codec: str = "libx264", pix_fmt: str = "yuv420p"):
    """A video stream, tagged as its first frame is, and what encodes the frames into it.

    The same frames give the same bytes.
    """
    ready = video_frames(frames)
    options = {"mbtree": "0"} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=RATE, options=options)
    stream.codec_context.thread_count = 1
    stream.width, stream.height, stream.pix_fmt = ready[0].width, ready[0].height, pix_fmt
    context = stream.codec_context
    context.colorspace, context.color_range = ready[0].colorspace, ready[0].color_range
    context.color_trc = ready[0].color_trc

    def fill() -> None:
        for frame in ready:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    return stream, fill


def add_tone(container, codec: str, seconds: float) -> Callable[[], None]:
    """A sound stream; returns what encodes a tone of so many seconds into it."""
    stream = container.add_stream(codec, rate=SAMPLES)
    stream.layout = "mono"

    def fill() -> None:
        wave = np.sin(np.arange(int(SAMPLES * seconds)) * 0.06) * 9000
        sound = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        sound.rate, sound.pts = SAMPLES, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())

    return fill


def encode(
    path: Path,
    frames: Tensor | Sequence[av.VideoFrame] | None,
    form: str = "mp4",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    audio: str | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """A file of a video, a tone by the codec `audio` beside it, or both."""
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        fills = []
        if frames is not None:
            fills.append(add_video(container, frames, codec, pix_fmt)[1])
        if audio:
            seconds = len(frames) / RATE if frames is not None else 1
            fills.append(add_tone(container, audio, seconds))
        for fill in fills:
            fill()
    return path


def sound_packets(path: Path) -> list[tuple[float, bytes]]:
    """The time and the bytes of every packet of a file's first sound stream."""
    with av.open(str(path)) as container:
        found = [p for p in container.demux(container.streams.audio[0]) if p.dts is not None]
    times = [p.pts if p.pts is not None else p.dts for p in found]
    return [(round(float(t * p.time_base), 3), bytes(p)) for t, p in zip(times, found)]


def seconds_of(clip: Clip) -> list[Fraction]:
    """When each frame is shown."""
    return [t * clip.time_base for t in clip.times]


def psnr(one: Tensor, other: Tensor) -> float:
    """Over everything, in dB."""
    return float(10 * torch.log10(255**2 / (one.double() - other.double()).square().mean()))


def refused(path: Path, why: str, max_frames: int = 99) -> None:
    """Reading names the file and the reason in one line, and leaves the folder as it was."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(BadVideoError, match=why) as caught:
        read_video(path, max_frames)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert "Error" not in str(caught.value) and "[Errno" not in str(caught.value)
    assert sorted(path.parent.iterdir()) == before
