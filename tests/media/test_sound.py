"""Sound beside another picture: kept as it is where the container takes it, else encoded again."""

import av
import numpy as np
import pytest

from kvlock.media.clip import BadVideoError
from kvlock.media.encoding import rehearse
from kvlock.media.video import read_video, write_video
from support.clips import RATE, encode, like, seconds_of, smooth, sound_packets

# container, its picture's codec, sound, pixel format
TAKEN = [
    ("mp4", "libx264", "aac"),
    ("matroska", "libx264", "flac"),
    ("matroska", "libx264", "ac3"),
    ("matroska", "libx264", "pcm_s16le"),
    ("webm", "libvpx-vp9", "libopus"),
    ("mpegts", "libx264", "mp2"),
    ("avi", "mpeg4", "libmp3lame"),
    ("mov", "libx264", "alac"),
]
NOT_TAKEN = [
    ("avi", "mpeg4", "adpcm_ms"),
    ("avi", "mpeg4", "pcm_u8"),
    ("mov", "libx264", "pcm_mulaw"),
    ("matroska", "libx264", "wavpack"),
]


def loudness(path) -> float:
    with av.open(str(path)) as container:
        sounds = [f.to_ndarray().astype(float) for f in container.decode(audio=0)]
    return float(np.abs(np.concatenate([s.reshape(-1) for s in sounds])).mean())


def seconds_of_sound(path) -> float:
    with av.open(str(path)) as container:
        return sum(f.samples / f.rate for f in container.decode(audio=0))


@pytest.mark.parametrize("form, codec, audio", TAKEN)
def test_sound_that_is_taken_is_kept_to_the_byte(tmp_path, form, codec, audio):
    clip = read_video(encode(tmp_path / "clip", smooth(), form, codec, audio=audio), 99)
    assert rehearse(clip, False, "mp4") == []
    write_video(tmp_path / "out.mp4", clip.frames, clip)
    before, after = (sound_packets(p) for p in (tmp_path / "clip", tmp_path / "out.mp4"))
    assert b"".join(data for _, data in before) == b"".join(data for _, data in after)


@pytest.mark.parametrize("form, codec, audio", NOT_TAKEN)
def test_sound_that_an_mp4_cannot_hold_is_encoded_again_and_that_is_said(
    tmp_path, form, codec, audio
):
    frames = smooth(RATE)
    clip = read_video(encode(tmp_path / "clip", frames, form, codec, audio=audio), 99)
    (note,) = rehearse(clip, False, "mp4")
    assert note.endswith("is encoded again, as AAC") and audio.split("_")[0] in note
    write_video(tmp_path / "out.mp4", clip.frames, clip)
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.name == "aac" and stream.layout.name == "mono"
    assert seconds_of_sound(tmp_path / "out.mp4") == pytest.approx(1, abs=0.05)
    tone = 2 / np.pi * 9000 / 2**15
    assert loudness(tmp_path / "out.mp4") == pytest.approx(tone, rel=0.05)
    assert seconds_of(read_video(tmp_path / "out.mp4", 99)) == seconds_of(clip)
    write_video(tmp_path / "again.mp4", clip.frames, clip)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_sound_that_cannot_be_read_either_is_refused_before_the_edit(tmp_path):
    source = encode(tmp_path / "clip", smooth(), "matroska", audio="tta")  # its header lacks a part
    clip = read_video(source, 99)
    with pytest.raises(BadVideoError, match=r"its sound \(tta\) cannot be written as mp4"):
        rehearse(clip, False, "mp4")
    assert rehearse(clip, False, "matroska") == []


@pytest.mark.parametrize("audio", ["wavpack", "tta"])
def test_an_mkv_keeps_what_an_mp4_cannot_hold(tmp_path, audio):
    source = encode(tmp_path / "clip", smooth(), "matroska", audio=audio)
    clip = read_video(source, 99)
    assert rehearse(clip, False, "matroska") == []
    for name in ("out.mkv", "again.mkv"):
        write_video(tmp_path / name, clip.frames, clip, lossless=True)
    assert [d for _, d in sound_packets(source)] == [
        d for _, d in sound_packets(tmp_path / "out.mkv")
    ]
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "again.mkv").read_bytes()
    assert read_video(tmp_path / "out.mkv", 99).frames.equal(clip.frames)


@pytest.mark.parametrize(
    "size, sound", [((2, 16384), True), ((2, 16386), False), ((16385, 1), False)]
)
def test_sides_beyond_the_encoders_are_refused_before_the_edit(size, sound):
    clip = like(1)
    object.__setattr__(clip, "frames", smooth(1, *size))
    if sound:
        assert rehearse(clip, True, "mp4") == []
    else:
        with pytest.raises(BadVideoError, match="H.264 ends at 16384 a side; scale it first"):
            rehearse(clip, True, "mp4")
