"""Files that are cut short, or have holes."""

from concurrent.futures import ThreadPoolExecutor

import av
import av.logging
import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.damage import check_reports
from kvlock.media.video import BadVideoError, read_video
from support.clips import encode, noisy, refused, smooth

# Cut short


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize(
    "form, flags, audio",
    [
        ("mp4", "", None),
        ("mp4", "", "aac"),
        ("mp4", "faststart", None),
        ("mp4", "faststart", "aac"),
        ("mp4", "frag_keyframe+empty_moov", None),
        ("matroska", "", None),
        ("matroska", "", "aac"),
        ("flv", "", None),
        ("avi", "", "mp3"),
    ],
)
def test_a_file_cut_short_is_refused(tmp_path, form, flags, audio, share):
    options = {"movflags": flags} if flags else {}
    path = encode(tmp_path / "a.mp4", noisy(32, 16, 16), form, options=options, audio=audio)
    assert len(read_video(path, 32).frames) == 32
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated|cannot be decoded|damaged")


@pytest.mark.parametrize("lost", [1, 40, 400])
@pytest.mark.parametrize("form, codec", [("matroska", "libx264"), ("webm", "libvpx")])
def test_a_file_that_lacks_the_last_bytes_of_its_last_frame_is_refused(tmp_path, form, codec, lost):
    """Its header's length comes near enough, and it does not say how many frames there are."""
    path = encode(tmp_path / "a.mkv", noisy(16), form, codec)
    data = path.read_bytes()
    cues = data.rindex(b"\x1c\x53\xbb\x6b")  # the index that follows the last frame
    path.write_bytes(data[: cues - lost])
    refused(path, "truncated|damaged")


def gif(path, frames) -> bytes:
    images = [Image.fromarray(f.numpy()) for f in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=60)
    return path.read_bytes()


def test_a_gif_is_whole_or_refused(tmp_path):
    """It holds no count of its frames, so that what was cut off is not missed."""
    path = tmp_path / "a.gif"
    whole = gif(path, noisy(9))
    clip = read_video(path, 9)
    assert len(clip.frames) == 9 and clip.notes == ()
    for share in (0.3, 0.5, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, "damaged, the gif decoder says 'LZW decode failed'|cannot be decoded")


def test_a_gif_cut_between_two_frames_says_that_its_end_is_missing(tmp_path):
    whole = gif(tmp_path / "a.gif", noisy(9))
    starts = [i for i in range(len(whole)) if whole.startswith(b"\x00\x21\xf9\x04", i)]
    (tmp_path / "a.gif").write_bytes(whole[: starts[5] + 1])
    clip = read_video(tmp_path / "a.gif", 9)
    assert len(clip.frames) < 9
    assert clip.notes == (f"{clip.path}: the gif has no end mark; its last frames may be missing",)
    (tmp_path / "a.gif").write_bytes(whole + b"\0\r\n")  # what follows the end mark is harmless
    assert read_video(tmp_path / "a.gif", 9).notes == ()


# Holes


def test_frames_that_the_decoder_conceals_are_refused(tmp_path):
    """FFmpeg decodes on past a hole and flags the frame, unless the hole makes sense to it."""
    path, said = encode(tmp_path / "a.mp4", noisy(9)), []
    good = path.read_bytes()
    for hole in range(1500, 15000, 1500):
        data = bytearray(good)
        start = data.index(b"mdat") + hole
        data[start : start + 300] = (b"\x00", b"\xff", b"U")[hole // 1500 % 3] * 300
        path.write_bytes(data)
        try:
            assert len(read_video(path, 9).frames) == 9
        except BadVideoError as error:
            said.append(str(error))
    assert any("is damaged; re-encode or repair the file" in message for message in said)


def test_a_transport_stream_that_ends_within_a_packet_is_said(tmp_path):
    path = encode(tmp_path / "a.ts", smooth(), "mpegts")
    data = path.read_bytes()
    assert read_video(path, 9).notes == ()
    for length in range(len(data) // 2, len(data), 37):
        path.write_bytes(data[:length])
        try:
            notes = read_video(path, 9).notes
        except BadVideoError:
            continue
        assert length % 188 == 0 or any("its last frames may be missing" in n for n in notes)


REPORTING = [
    ("gif", "gif", "rgb8", 16),
    ("matroska", "ffv1", "yuv420p", 18),
    ("matroska", "ffv1", "yuv420p10le", 18),
    ("mov", "png", "rgb24", 16),
    ("avi", "mpeg4", "yuv420p", 10),
    ("mpegts", "mpeg2video", "yuv420p", 8),
]


@pytest.mark.parametrize("form, codec, pix_fmt, least", REPORTING)
def test_holes_that_the_decoder_reports_are_refused(tmp_path, form, codec, pix_fmt, least):
    """Of 20 holes at least so many are found; some make sense to the decoder, or hit no pixel."""
    frames = smooth(12, 96, 128)
    frames[:, 20:60, 30:90] = noisy(12, 40, 60)
    formed = [av.VideoFrame.from_ndarray(f.numpy()).reformat(format=pix_fmt) for f in frames]
    path = encode(tmp_path / "a", formed, form, codec, pix_fmt=pix_fmt)
    healthy, good, found = read_video(path, 12), path.read_bytes(), 0
    assert len(healthy.frames) == 12 and healthy.notes == ()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        data, length = bytearray(good), int(generator.integers(8, 60))
        start = int(generator.integers(len(data) // 10, len(data) * 9 // 10))
        data[start : start + length] = generator.bytes(length)
        path.write_bytes(data)
        try:
            read_video(path, 12)
        except BadVideoError:
            found += 1
    assert found >= least


H264 = [("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("mp4", "libx265")]
OTHERS = [("webm", "libvpx"), ("webm", "libvpx-vp9"), ("avi", "mjpeg"), ("mov", "qtrle")]


@pytest.mark.parametrize("form, codec", H264 + OTHERS)
def test_a_healthy_file_of_any_kind_has_no_notes(tmp_path, form, codec):
    pix_fmt = {"mjpeg": "yuvj420p", "qtrle": "rgb24"}.get(codec, "yuv420p")
    formed = [av.VideoFrame.from_ndarray(f.numpy()).reformat(format=pix_fmt) for f in noisy(12)]
    clip = read_video(encode(tmp_path / "a", formed, form, codec, pix_fmt=pix_fmt), 12)
    assert len(clip.frames) == 12 and clip.notes == ()


# What FFmpeg reports


def test_reports_of_others_and_harmless_ones_are_passed_over(tmp_path):
    error, warning = av.logging.ERROR, av.logging.WARNING
    found = [
        (error, "aac", "broken sound"),
        (warning, "gif", "a warning"),
        (error, "mjpeg", "unable to decode APP fields: nothing"),
        (error, "gif", " \n"),
    ]
    assert check_reports(tmp_path, found, "gif", "gif") == []
    assert check_reports(tmp_path, found, "mjpeg", "avi") == []
    (note,) = check_reports(tmp_path, [(error, "h264", "mmco: unref short failure\n")], "h264", "")
    assert note.startswith(f"{tmp_path}: FFmpeg reports 'mmco: unref short failure' (h264)")
    (note,) = check_reports(tmp_path, [(error, "avi", "an odd index\n")], "mjpeg", "avi")
    assert "an odd index" in note
    with pytest.raises(BadVideoError, match="truncated"):
        report = [(error, "matroska,webm", "File ended prematurely at pos. 9 (0x9)\n")]
        check_reports(tmp_path, report, "vp8", "matroska,webm")


def test_reading_leaves_ffmpegs_own_log_as_it_was(tmp_path):
    path = encode(tmp_path / "a.mp4", smooth(3))
    before = av.logging.get_level()
    for level in (None, av.logging.FATAL):
        av.logging.set_level(level)
        try:
            read_video(path, 3)
            with pytest.raises(BadVideoError):
                read_video(path, 2)
            assert av.logging.get_level() == level
        finally:
            av.logging.set_level(before)


def test_files_are_read_in_several_threads_at_once(tmp_path):
    """Each thread with its own reports, the damaged files among them, and none waits for ever."""
    good, bad = encode(tmp_path / "a.mp4", noisy(9)), tmp_path / "b.gif"
    bad.write_bytes(gif(bad, noisy(9))[:-900])
    expected = read_video(good, 9).frames

    def read(number: int) -> bool:
        if number % 2:
            return torch.equal(read_video(good, 9).frames, expected)
        with pytest.raises(BadVideoError, match="damaged"):
            read_video(bad, 9)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))
