"""Decoded frames to upright RGB, and RGB to what an encoder takes."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

UNTAGGED, RGB = 2, 0
HD_LINES = 720
EIGHT_BITS = 8


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3] as stored, through the frame's own colour tags.

    Untagged video is bt709 from 720 lines on, bt601 below.
    """
    matrix = frame.colorspace
    if matrix in (UNTAGGED, None):
        matrix = Colorspace.ITU709 if frame.height >= HD_LINES else Colorspace.ITU601
    elif matrix == RGB:
        matrix = Colorspace.ITU709
    if _has_deep_chroma(frame):  # on the direct way swscale repeats it, which costs 3 to 6 dB
        frame = frame.reformat(
            format="yuv444p16le",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=Interpolation.BICUBIC,
        )
    converted = frame.reformat(
        format="rgb24", src_colorspace=matrix, dst_colorspace=Colorspace.ITU709
    )
    return converted.to_ndarray()


def _has_deep_chroma(frame: av.VideoFrame) -> bool:
    """Whether chroma is subsampled, and of more than 8 bits."""
    form, sides = frame.format, (frame.width, frame.height)
    deep = max(c.bits for c in form.components) > EIGHT_BITS
    return deep and (form.chroma_width(sides[0]), form.chroma_height(sides[1])) != sides


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether anything in the frame is not opaque."""
    if not (frame.format.has_palette or any(c.is_alpha for c in frame.format.components)):
        return False
    return bool(frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


def display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """How the frame is to be shown, float [2, 2]: a stored (x, y) goes to (x, y) @ matrix.

    The identity where the file does not say.
    """
    side_data: Any = frame.side_data  # PyAV's own type lacks the keys
    try:
        values = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32)
    except KeyError:
        return np.eye(2)
    return values.reshape(3, 3)[:2, :2] / 65536  # 16.16 fixed point, in the machine's byte order


def is_transposed(matrix: np.ndarray) -> bool:
    """Whether rows become columns."""
    return bool(np.abs(matrix.diagonal()).sum() < np.abs(matrix[[0, 1], [1, 0]]).sum())


def is_upright(matrix: np.ndarray) -> bool:
    """Whether the matrix turns by quarters and mirrors, and does nothing else that shows."""
    small, large = sorted((np.abs(matrix.diagonal()).sum(), np.abs(matrix[[0, 1], [1, 0]]).sum()))
    return bool(small <= 0.01 * large)


def turned(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture [H, W, 3] as it is to be shown, by quarter turns and mirrors."""
    across, down = matrix.diagonal()
    if is_transposed(matrix):
        picture, (down, across) = picture.transpose(1, 0, 2), (matrix[0, 1], matrix[1, 0])
    picture = picture[::-1] if down < 0 else picture
    picture = picture[:, ::-1] if across < 0 else picture
    return np.ascontiguousarray(picture)


def from_rgb(picture: np.ndarray, pix_fmt: str, time: int, time_base: Fraction) -> av.VideoFrame:
    """A frame for the encoder, in bt709, of uint8 [H, W, 3]."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    if pix_fmt != "rgb24":
        frame = frame.reformat(
            format=pix_fmt, src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU709
        )
    frame.pts, frame.time_base = time, time_base
    return frame
