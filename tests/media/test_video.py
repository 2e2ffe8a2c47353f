"""Files and folders of frames there and back: pixels, times, sound; whole or not at all."""

import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from PIL import Image

from kvlock.media.video import BadVideoError, read_video, write_video
from support.clips import (
    encode,
    flat,
    like,
    noisy,
    psnr,
    refused,
    seconds_of,
    smooth,
    sound_packets,
)


@pytest.mark.parametrize("size", [(48, 64), (31, 33), (2, 2)])
def test_a_lossless_round_trip_is_bit_exact(tmp_path, size):
    frames = noisy(5, *size)
    write_video(tmp_path / "a.mp4", frames, like(5), lossless=True)
    assert torch.equal(read_video(tmp_path / "a.mp4", 5).frames, frames)


@pytest.mark.parametrize("size", [(48, 64), (31, 33), (48, 33), (31, 64)])
def test_the_default_round_trip_is_near_and_keeps_size_count_and_times(tmp_path, size):
    frames = smooth(9, *size)
    write_video(tmp_path / "a.mp4", frames, like(9, rate=Fraction(30000, 1001)))
    clip = read_video(tmp_path / "a.mp4", 9)
    assert clip.frames.shape == frames.shape and clip.frames.dtype == torch.uint8
    assert clip.is_file and clip.notes == () and clip.pixel_aspect == 1
    assert clip.rate == Fraction(30000, 1001)
    assert seconds_of(clip) == [i * Fraction(1001, 30000) for i in range(9)]
    assert psnr(clip.frames, frames) > 30


def test_variable_frame_times_survive_two_trips(tmp_path):
    times = (0, 1000, 1500, 4000, 4100, 9000, 12000, 12001, 90000)
    clip = like(9, times=times, time_base=Fraction(1, 12800))
    write_video(tmp_path / "a.mp4", smooth(), clip)
    first = read_video(tmp_path / "a.mp4", 9)
    write_video(tmp_path / "b.mp4", first.frames, first)
    second = read_video(tmp_path / "b.mp4", 9)
    assert seconds_of(first) == seconds_of(second) == [Fraction(t, 12800) for t in times]


def test_the_same_clip_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", noisy(3, 160, 32), like(3))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b" threads=1 " in (tmp_path / "a.mp4").read_bytes()  # on another machine, too


def test_frames_that_lie_elsewhere_in_memory_are_written_as_they_are(tmp_path):
    """Every second frame, mirrored, of planes that come first."""
    planes = noisy(9).permute(0, 3, 1, 2).contiguous()
    frames = planes[::2].flip(-1).permute(0, 2, 3, 1)
    write_video(tmp_path / "a.mp4", frames, like(5), lossless=True)
    assert torch.equal(read_video(tmp_path / "a.mp4", 5).frames, frames)


def test_a_clip_can_be_written_over_itself(tmp_path):
    path = encode(tmp_path / "a.mp4", smooth(), audio="aac")
    before, clip = sound_packets(path), read_video(path, 9)
    write_video(path, noisy(), clip, lossless=True)
    assert torch.equal(read_video(path, 9).frames, noisy()) and sound_packets(path) == before


def test_a_relative_name_with_a_colon_is_a_file_and_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("take:1.mp4", smooth(), like(9))
    assert len(read_video("take:1.mp4", 9).frames) == 9
    assert os.listdir() == ["take:1.mp4"]


@pytest.mark.parametrize(
    "form, codec, audio",
    [
        ("mp4", "libx264", "aac"),
        ("matroska", "libx264", "flac"),
        ("webm", "libvpx", "libopus"),
        ("avi", "mpeg4", "mp3"),
    ],
)
def test_the_audio_is_copied_bit_for_bit(tmp_path, form, codec, audio):
    path = encode(tmp_path / f"a.{form}", smooth(16), form, codec, audio=audio)
    clip = read_video(path, 99)
    write_video(tmp_path / "b.mp4", clip.frames, clip)
    before, after = sound_packets(path), sound_packets(tmp_path / "b.mp4")
    assert len(before) > 5 and [data for _, data in before] == [data for _, data in after]
    assert max(abs(a[0] - b[0]) for a, b in zip(before, after)) < 0.03
    assert len(read_video(tmp_path / "b.mp4", 16).frames) == 16


# Folders of frames


def saved(path, frame) -> None:
    Image.fromarray(frame.numpy()).save(path)


def test_a_folder_is_read_in_numerical_order(tmp_path):
    for number in (10, 2, 1):
        saved(tmp_path / f"{number}.png", flat((number, 0, 0), 1)[0])
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_video(tmp_path, 3, folder_rate=Fraction(8))
    assert clip.frames.dtype == torch.uint8 and clip.frames[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert seconds_of(clip) == [0, Fraction(1, 8), Fraction(1, 4)]
    assert not clip.is_file and clip.notes == ()


def test_a_folder_can_be_written_as_a_video(tmp_path):
    for number in range(3):
        saved(tmp_path / f"{number}.png", smooth(3)[number])
    clip = read_video(tmp_path, 3)
    write_video(tmp_path / "a.mp4", clip.frames, clip, lossless=True)
    assert torch.equal(read_video(tmp_path / "a.mp4", 3).frames, smooth(3))


def test_a_bad_folder_is_refused(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    refused(folder, "no PNG or JPEG")
    saved(folder / "1.png", smooth(1)[0])
    saved(folder / "2.png", smooth(1)[0])
    refused(folder, "cut it to 1 frames", max_frames=1)
    saved(folder / "2.png", smooth(1, 48, 66)[0])
    with pytest.raises(BadVideoError, match=r"2\.png: its size differs"):
        read_video(folder, 9)
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(BadVideoError, match=r"2\.png: cannot be read as an image"):
        read_video(folder, 9)


# Failed writes


def test_a_write_into_no_folder_is_refused(tmp_path):
    with pytest.raises(BadVideoError, match="none/a.mp4: cannot be written"):
        write_video(tmp_path / "none" / "a.mp4", smooth(), like(9))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_encoding_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(BadVideoError, match="cannot be written"):
        write_video(path, smooth(), like(9, times=[5] * 9))  # times that do not advance
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import torch
from kvlock.media.video import BadVideoError, Clip, write_video
noise = torch.Generator().manual_seed(0)
frames = torch.randint(0, 256, (9, 48, 64, 3), dtype=torch.uint8, generator=noise)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
clip = Clip(frames, Fraction(16), tuple(range(9)), Fraction(1, 16), Path("nowhere"))
try:
    write_video(sys.argv[1], frames, clip)
except BadVideoError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the file size")
@pytest.mark.parametrize("limit", [16, 20000])
def test_a_full_disk_keeps_the_old_file(tmp_path, limit):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run([*command, str(limit)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"refused: {path}: cannot be written" in done.stderr
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    assert subprocess.run([*command, str(10**7)]).returncode == 0
    assert len(read_video(path, 9).frames) == 9
