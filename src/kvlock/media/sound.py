"""A clip's sound beside another picture: its packets as they are, or encoded again as AAC."""

import io
from collections.abc import Callable, Iterable
from typing import Any

import av
from av.container import InputContainer, OutputContainer

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # by channels

Mux = Callable[[], None]


def takes(form: str, track: Any) -> bool:
    """Whether a container of that format takes the track's packets as they are."""
    try:
        with av.open(io.BytesIO(), "w", format=form) as trial:
            trial.add_stream_from_template(track)
            trial.start_encoding()
        return True
    except Exception:  # PyAV: ValueError, NotImplementedError, FFmpegError
        return False


def add_sound(container: OutputContainer, source: InputContainer, form: str) -> Mux:
    """Add a stream for each track of `source`; gives what fills them, after the pictures."""
    tracks = source.streams.audio
    copied = {t.index: container.add_stream_from_template(t) for t in tracks if takes(form, t)}
    encoders = {t.index: _Encoder(container, t) for t in tracks if t.index not in copied}

    def mux() -> None:
        for packet in source.demux(tracks) if tracks else ():
            if packet.stream_index in encoders:
                encoders[packet.stream_index].take(packet.decode() if packet.size else ())
            elif packet.dts is not None:
                packet.stream = copied[packet.stream_index]
                container.mux(packet)
        for encoder in encoders.values():
            encoder.end()

    return mux


class _Encoder:
    """One track encoded again."""

    def __init__(self, container: OutputContainer, track: Any):
        rate = track.rate if track.rate in AAC_RATES else 48000
        layout = AAC_LAYOUTS.get(track.layout.nb_channels, "stereo")
        self._container, self._track = container, track
        self._resampler = av.AudioResampler("fltp", layout, rate)
        self._stream = container.add_stream("aac", rate=rate, layout=layout)

    def take(self, frames: Iterable[Any]) -> None:
        for frame in frames:
            for ready in self._resampler.resample(frame):
                self._container.mux(self._stream.encode(ready))

    def end(self) -> None:
        self.take(self._track.decode(None))  # what its decoder still holds
        for ready in self._resampler.resample(None):
            self._container.mux(self._stream.encode(ready))
        self._container.mux(self._stream.encode(None))
