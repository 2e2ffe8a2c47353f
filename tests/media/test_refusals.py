"""Files that are no videos, or too much of one."""

import os
import subprocess
import sys

import av
import av.logging
import numpy as np
import pytest
from PIL import Image

from kvlock.media.video import BadVideoError, read_video
from support.clips import encode, noisy, refused, smooth


@pytest.mark.parametrize(
    "content, why",
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"hello, I am a text file\n" * 20, "of another kind; expected mp4, mov, mkv, webm"),
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
    Image.fromarray(smooth(1)[0].numpy()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    refused(tmp_path / "a.mp4", "cannot be decoded")


def test_a_program_for_a_printer_named_like_a_picture_is_refused(tmp_path):
    """Pillow would hand PostScript to Ghostscript."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(
        BadVideoError, match="1.png: cannot be read as an image, so it is damaged or"
    ):
        read_video(tmp_path / "frames", 9)


def test_pictures_under_a_name_of_another_kind_are_read_by_what_they_hold(tmp_path):
    """In a new process, where no writer has made Pillow look for its readers. MPO is a phone's JPEG."""
    forms = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF")
    for form in forms:
        (tmp_path / form).mkdir()
        Image.fromarray(smooth(1)[0].numpy()).save(tmp_path / form / "1.png", form)
    code = "import sys; from kvlock.media.video import read_video as r; [r(p, 9) for p in sys.argv[1:]]"
    folders = [str(tmp_path / form) for form in forms]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_audio_alone_is_refused(tmp_path):
    refused(encode(tmp_path / "a.mp4", None, audio="aac"), "no video stream")


def test_a_size_that_changes_is_refused(tmp_path):
    """A raw stream of two joined files, which a container's header knows nothing of."""
    parts = [encode(tmp_path / f"{h}", smooth(4, h), "mpegts", "mpeg2video") for h in (48, 64)]
    (tmp_path / "a.ts").write_bytes(b"".join(p.read_bytes() for p in parts))
    refused(tmp_path / "a.ts", "its frames have two sizes, 64x48 and 64x64; scale them first")


# Too much


def test_too_many_frames_are_refused_from_the_header(tmp_path):
    path = encode(tmp_path / "a.mp4", noisy(16), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 1500])  # decoding would miss the rest first
    refused(path, "cut it to 15 frames", max_frames=15)
    refused(path, "damaged|truncated|cannot be decoded", max_frames=16)


def test_too_many_frames_are_refused_where_the_header_does_not_say(tmp_path):
    path = encode(tmp_path / "a.mkv", smooth(16), "matroska")
    refused(path, "cut it to 15 frames", max_frames=15)
    assert len(read_video(path, 16).frames) == 16


def test_a_huge_picture_is_refused_from_the_header(tmp_path):
    huge = [av.VideoFrame(4112, 4096, "yuv420p")]
    refused(encode(tmp_path / "a.mp4", huge, codec="mpeg4"), "4112x4096 is larger than")


def promised(path) -> int:
    """The frames that a file's tables name, less those that its edit list cuts off."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames - sum(p.is_discard for p in container.demux(stream))


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["plain", "faststart"])
def test_a_mutated_file_is_refused_or_read_whole(tmp_path, options):
    good = encode(tmp_path / "good.mp4", smooth(), options=options).read_bytes()
    bad, whole = tmp_path / "bad.mp4", 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        data = bytearray(good)
        for spot in generator.integers(0, len(data), generator.integers(1, 6)):
            data[spot] = generator.integers(256)
        bad.write_bytes(data)
        try:
            clip = read_video(bad, 50)
            assert len(clip.frames) == len(clip.times) == promised(bad), seed
            whole += 1
        except BadVideoError as error:
            assert str(error).startswith(f"{bad}: ") and "\n" not in str(error), seed
    assert 0 < whole < 60  # both outcomes occur
    assert sorted(os.listdir(tmp_path)) == ["bad.mp4", "good.mp4"]
