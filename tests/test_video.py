import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kvlock.media.video import BadVideoError, Clip, read_video, write_video

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (255, 255, 255), (200, 30, 90)]


def smooth(frames=9, height=48, width=64) -> np.ndarray:
    t, y, x = np.mgrid[:frames, :height, :width]
    planes = (x / width, y / height, (x + y + 3 * t) / (width + height + 3 * frames))
    return (np.stack(planes, -1) * 255).astype(np.uint8)


def noisy(frames=9, height=48, width=64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


def flat(colour, frames=3) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (frames, 48, 64, 3))


def like(count: int, rate=16, times=None, time_base=None) -> Clip:
    """Times for a clip that comes from no file."""
    times = tuple(times or range(count))
    return Clip(smooth(1), Fraction(rate), times, time_base or 1 / Fraction(rate), Path("nowhere"))


def encode(path: Path, frames, form="mp4", codec="libx264", options=None, audio=None, pix_fmt="yuv420p") -> Path:
    """A file by PyAV alone; `frames` are RGB arrays or ready frames, `audio` is the codec of a tone beside them."""
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        if frames is not None:
            video = container.add_stream(codec, rate=16)
            video.pix_fmt = pix_fmt
            frames = [f if isinstance(f, av.VideoFrame) else av.VideoFrame.from_ndarray(f) for f in frames]
            video.width, video.height = frames[0].width, frames[0].height
            context = video.codec_context
            context.colorspace, context.color_range = frames[0].colorspace, frames[0].color_range
            context.color_trc = frames[0].color_trc
        if audio:
            tone = container.add_stream(audio, rate=48000)
            tone.layout = "mono"
        if frames is not None:
            for frame in frames:
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio:
            seconds = len(frames) / 16 if frames is not None else 1
            wave = (np.sin(np.arange(int(48000 * seconds)) * 0.06) * 9000).astype(np.int16)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            sound.rate, sound.pts = 48000, 0
            container.mux(tone.encode(sound))
            container.mux(tone.encode())
    return path


def packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        found = [p for p in container.demux(container.streams.audio[0]) if p.dts is not None]
        return [(round(float((p.pts if p.pts is not None else p.dts) * p.time_base), 3), bytes(p)) for p in found]


def promised(path: Path) -> int:
    """The frames that a file's tables name, less those that its edit list cuts off."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames - sum(p.is_discard for p in container.demux(stream))


def seconds(clip: Clip) -> list[Fraction]:
    return [t * clip.time_base for t in clip.times]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def refused(path: Path, why: str, max_frames=99) -> None:
    """Reading names the file and the reason in one line, and leaves the folder as it was."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(BadVideoError, match=why) as caught:
        read_video(path, max_frames)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert sorted(path.parent.iterdir()) == before


# Round trips


@pytest.mark.parametrize("size", [(48, 64), (31, 33), (2, 2)])
def test_a_lossless_round_trip_is_bit_exact(tmp_path, size):
    frames = noisy(5, *size)
    write_video(tmp_path / "a.mp4", frames, like(5), lossless=True)
    assert np.array_equal(read_video(tmp_path / "a.mp4", 5).frames, frames)


@pytest.mark.parametrize("size", [(48, 64), (31, 33), (48, 33), (31, 64)])
def test_the_default_round_trip_is_near_and_keeps_size_count_and_times(tmp_path, size):
    frames = smooth(9, *size)
    write_video(tmp_path / "a.mp4", frames, like(9, rate=Fraction(30000, 1001)))
    clip = read_video(tmp_path / "a.mp4", 9)
    assert clip.frames.shape == frames.shape and clip.frames.dtype == np.uint8 and clip.is_file
    assert clip.rate == Fraction(30000, 1001)
    assert seconds(clip) == [i * Fraction(1001, 30000) for i in range(9)]
    assert psnr(clip.frames, frames) > 30


def test_variable_frame_times_survive_two_trips(tmp_path):
    times = (0, 1000, 1500, 4000, 4100, 9000, 12000, 12001, 90000)
    write_video(tmp_path / "a.mp4", smooth(), like(9, times=times, time_base=Fraction(1, 12800)))
    first = read_video(tmp_path / "a.mp4", 9)
    write_video(tmp_path / "b.mp4", first.frames, first)
    second = read_video(tmp_path / "b.mp4", 9)
    assert seconds(first) == seconds(second) == [Fraction(t, 12800) for t in times]


def test_the_same_clip_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", noisy(3, 160, 32), like(3))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b" threads=1 " in (tmp_path / "a.mp4").read_bytes()  # on another machine, too


def test_a_clip_can_be_written_over_itself(tmp_path):
    path = encode(tmp_path / "a.mp4", smooth(), audio="aac")
    before, clip = packets(path), read_video(path, 9)
    write_video(path, noisy(), clip, lossless=True)
    assert np.array_equal(read_video(path, 9).frames, noisy()) and packets(path) == before


def test_a_relative_name_with_a_colon_is_a_file_and_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("take:1.mp4", smooth(), like(9))
    assert len(read_video("take:1.mp4", 9).frames) == 9
    assert os.listdir() == ["take:1.mp4"]


# Colour


@pytest.mark.parametrize("colour", COLOURS)
def test_saturated_colours_survive_the_default_encoding(tmp_path, colour):
    write_video(tmp_path / "a.mp4", flat(colour), like(3))
    assert np.abs(read_video(tmp_path / "a.mp4", 3).frames.astype(int) - colour).max() <= 3


def test_the_file_is_tagged_bt709_and_holds_bt709(tmp_path):
    write_video(tmp_path / "a.mp4", flat((255, 0, 0)), like(3))
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        luma = next(container.decode(video=0)).to_ndarray()[:48]
    assert abs(float(luma.mean()) - (16 + 219 * 0.2126)) < 1.5  # bt601 red would be 82


def yuv(colour, matrix: str, full: bool, tag: int) -> av.VideoFrame:
    """A flat frame whose Y, Cb and Cr come from the standard's own formula."""
    red, blue = LUMA[matrix]
    r, g, b = (c / 255 for c in colour)
    y = red * r + (1 - red - blue) * g + blue * b
    values = (y, (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red)))
    scales = ((255, 0), (255, 128), (255, 128)) if full else ((219, 16), (224, 128), (224, 128))
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value, (scale, offset) in zip(frame.planes, values, scales):
        level = min(255, round(value * scale + offset))
        plane.update(np.full((plane.height, plane.line_size), level, np.uint8).tobytes())
    frame.colorspace, frame.color_range = tag, 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix, tag", [("bt709", 1), ("bt601", 6), ("bt601", 5), ("bt601", 2), ("bt2020", 9)])
def test_a_file_is_read_through_its_own_colour_tags(tmp_path, matrix, tag, full):
    for colour in COLOURS:
        path = encode(tmp_path / "a.mkv", [yuv(colour, matrix, full, tag)] * 2, "matroska", "ffv1")
        assert np.abs(read_video(path, 2).frames.astype(int) - colour).max() <= 3, colour


def test_untagged_video_of_720_lines_is_bt709(tmp_path):
    small = yuv((255, 0, 0), "bt709", False, 2)
    large = av.VideoFrame(16, 720, "yuv420p")
    for plane, original in zip(large.planes, small.planes):
        plane.update(bytes([bytes(original)[0]]) * plane.buffer_size)
    clip = read_video(encode(tmp_path / "a.mkv", [large], "matroska", "ffv1"), 1)
    assert np.abs(clip.frames.astype(int) - (255, 0, 0)).max() <= 3


def test_hdr_is_refused(tmp_path):
    frame = yuv((255, 0, 0), "bt2020", False, 9)
    frame.color_trc = 16
    refused(encode(tmp_path / "a.mkv", [frame] * 2, "matroska", "ffv1"), "HDR")


# Audio, rotation, edit lists, containers


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
    before, after = packets(path), packets(tmp_path / "b.mp4")
    assert len(before) > 5 and [data for _, data in before] == [data for _, data in after]
    assert max(abs(a[0] - b[0]) for a, b in zip(before, after)) < 0.03
    assert len(read_video(tmp_path / "b.mp4", 16).frames) == 16


def test_a_file_without_frame_times_gets_even_ones(tmp_path):
    """AVI holds no presentation times, and B-frames make its packets come out of order."""
    clip = read_video(encode(tmp_path / "a.avi", smooth(12), "avi"), 12)
    assert seconds(clip) == [Fraction(i, 16) for i in range(12)]


@pytest.mark.parametrize("matrix, turns", [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_rotated_video_is_turned_upright(tmp_path, matrix, turns):
    """The display matrix of a phone's video lies in its track header; (0, 1, -1, 0) turns clockwise by 90 degrees."""
    path = encode(tmp_path / "a.mp4", smooth())
    upright, data = read_video(path, 9).frames, bytearray(path.read_bytes())
    a, b, c, d = (m * 65536 for m in matrix)
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert np.array_equal(read_video(path, 9).frames, np.rot90(upright, turns, axes=(1, 2)))


def test_frames_that_an_edit_list_cuts_off_are_not_missed(tmp_path):
    """A phone trims a video by its edit list; the file still holds the frames before it."""
    path = encode(tmp_path / "a.mp4", smooth(16))
    whole, data = read_video(path, 16), bytearray(path.read_bytes())
    start = data.index(b"elst") + 12
    _, first = struct.unpack_from(">Ii", data, start)
    struct.pack_into(">Ii", data, start, 625, first + 6 * 1024)
    path.write_bytes(data)
    assert np.array_equal(read_video(path, 16).frames, whole.frames[6:])


def test_a_real_clip_is_read():
    path = CLIPS / "vace_test2.mp4"
    if not path.exists():
        pytest.skip("no shared clips")
    clip = read_video(path, 25)
    assert clip.frames.shape == (25, 768, 512, 3) or clip.frames.shape == (25, 512, 768, 3)
    assert clip.rate == 25 and len(clip.times) == 25


# Folders of frames


def test_a_folder_is_read_in_numerical_order(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(flat((number, 0, 0), 1)[0]).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_video(tmp_path, 3, folder_rate=Fraction(8))
    assert clip.frames[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert seconds(clip) == [0, Fraction(1, 8), Fraction(1, 4)] and not clip.is_file


def test_a_folder_can_be_written_as_a_video(tmp_path):
    for number in range(3):
        Image.fromarray(smooth(3)[number]).save(tmp_path / f"{number}.png")
    clip = read_video(tmp_path, 3)
    write_video(tmp_path / "a.mp4", clip.frames, clip, lossless=True)
    assert np.array_equal(read_video(tmp_path / "a.mp4", 3).frames, smooth(3))


def test_a_bad_folder_is_refused(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    refused(folder, "no PNG or JPEG")
    Image.fromarray(smooth(1)[0]).save(folder / "1.png")
    Image.fromarray(smooth(1)[0]).save(folder / "2.png")
    refused(folder, "cut it to 1 frames", max_frames=1)
    Image.fromarray(smooth(1, 48, 66)[0]).save(folder / "2.png")
    with pytest.raises(BadVideoError, match=r"2\.png: its size differs"):
        read_video(folder, 9)
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(BadVideoError, match=r"2\.png: cannot be read as an image"):
        read_video(folder, 9)


# Bad files


@pytest.mark.parametrize(
    "content, why",
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"hello, I am a text file\n" * 20, "cannot be decoded"),
        (np.random.default_rng(0).bytes(20000), "cannot be decoded"),
    ],
    ids=["missing", "empty", "text", "random"],
)
def test_what_is_no_video_is_refused(tmp_path, content, why):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    refused(tmp_path / "a.mp4", why)


def test_a_playlist_does_not_open_the_file_it_names(tmp_path):
    good = encode(tmp_path / "good.mp4", smooth())
    playlists = (
        f"ffconcat version 1.0\nfile {good}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{good}\n#EXT-X-ENDLIST\n",
    )
    for text in playlists:
        (tmp_path / "a.mp4").write_text(text)
        refused(tmp_path / "a.mp4", "cannot be decoded")


def test_an_image_named_like_a_video_is_refused(tmp_path):
    Image.fromarray(smooth(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    refused(tmp_path / "a.mp4", "cannot be decoded")


def test_audio_alone_is_refused(tmp_path):
    refused(encode(tmp_path / "a.mp4", None, audio="aac"), "no video stream")


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


def test_frames_that_the_decoder_conceals_are_refused(tmp_path):
    """FFmpeg decodes on past a hole and flags the frame, save where the hole happens to make sense to it."""
    path, told = encode(tmp_path / "a.mp4", noisy(9)), []
    good = path.read_bytes()
    for hole in range(1500, 15000, 1500):
        data = bytearray(good)
        start = data.index(b"mdat") + hole
        data[start : start + 300] = (b"\x00", b"\xff", b"U")[hole // 1500 % 3] * 300
        path.write_bytes(data)
        try:
            assert len(read_video(path, 9).frames) == 9
        except BadVideoError as error:
            told.append(str(error))
    assert any("is damaged; re-encode or repair the file" in message for message in told)


def test_too_many_frames_are_refused_from_the_header(tmp_path):
    path = encode(tmp_path / "a.mp4", noisy(16), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 1500])  # whoever decodes will miss the rest first
    refused(path, "cut it to 15 frames", max_frames=15)
    refused(path, "damaged|truncated|cannot be decoded", max_frames=16)


def test_too_many_frames_are_refused_where_the_header_does_not_tell(tmp_path):
    path = encode(tmp_path / "a.mkv", smooth(16), "matroska")
    refused(path, "cut it to 15 frames", max_frames=15)
    assert len(read_video(path, 16).frames) == 16


def test_a_huge_picture_is_refused_from_the_header(tmp_path):
    path = encode(tmp_path / "a.mp4", [av.VideoFrame(4112, 4096, "yuv420p")], codec="mpeg4")
    refused(path, "4112x4096 is larger than")


def test_a_huge_image_is_refused_from_its_header(tmp_path):
    Image.new("1", (4112, 4096)).save(tmp_path / "1.png")
    with pytest.raises(BadVideoError, match=r"1\.png: 4112x4096 is larger than \d+ pixels$"):
        read_video(tmp_path, 9)


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["plain", "faststart"])
def test_a_mutated_file_is_refused_or_read_whole(tmp_path, options):
    good = encode(tmp_path / "good.mp4", smooth(), options=options).read_bytes()
    bad, whole = tmp_path / "bad.mp4", 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        data = bytearray(good)
        for place in generator.integers(0, len(data), generator.integers(1, 6)):
            data[place] = generator.integers(256)
        bad.write_bytes(data)
        try:
            clip = read_video(bad, 50)
            assert len(clip.frames) == len(clip.times) == promised(bad), seed
            whole += 1
        except BadVideoError as error:
            assert str(error).startswith(f"{bad}: ") and "\n" not in str(error), seed
    assert 0 < whole < 60  # both outcomes occur
    assert sorted(os.listdir(tmp_path)) == ["bad.mp4", "good.mp4"]


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
import numpy as np
from kvlock.media.video import BadVideoError, Clip, write_video
frames = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_video(sys.argv[1], frames, Clip(frames, Fraction(16), tuple(range(9)), Fraction(1, 16), Path("nowhere")))
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
    assert done.returncode == 1 and f"refused: {path}: cannot be written" in done.stderr, done.stderr
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    assert subprocess.run([*command, str(10**7)]).returncode == 0
    assert len(read_video(path, 9).frames) == 9
