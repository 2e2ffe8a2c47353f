"""What shows an edit at a glance: a clip side by side with its source, a sheet of frames."""

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MIN_HEIGHT = 288  # of a side-by-side clip; smaller ones are enlarged
MOST_WIDTH, MOST_HEIGHT = 3840, 2160  # of a side-by-side clip, which every player takes
SHEET_WIDTH, CELL_HEIGHTS = 1600, (144, 400)
NARROWEST_LABEL = 480
SHEET_COLUMNS = 6
MARGIN = 4
FONT_SIZE, LINE_HEIGHT, MOST_LINES = 16, 20, 3


def side_by_side(source: Tensor, mask: Tensor, edited: Tensor) -> Tensor:
    """source | mask | edited as one clip, uint8 [F, h, w, 3] with even sides.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W]. Small clips are enlarged by a whole
    factor, large ones reduced until all three fit into 3840x2160.
    """
    frames, height, width = source.shape[:3]
    joined = torch.empty(frames, *comparison_size(height, width), 3, dtype=torch.uint8)
    height, width = _panel_size(height, width)
    for shown, *panels in zip(joined.numpy(), source, mask, edited):
        for number, panel in enumerate(panels):
            left = number * width
            shown[:height, left : left + width] = _scaled(_picture(panel), (height, width))
        shown[height:] = shown[height - 1]
        shown[:, 3 * width :] = shown[:, 3 * width - 1, None]
    return joined


def comparison_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of `side_by_side` for clips of that size; players need even sides."""
    height, width = _panel_size(height, width)
    return height + height % 2, 3 * width + width % 2


def contact_sheet(rows: dict[str, Tensor]) -> Image.Image:
    """Named clips, uint8 [F, H, W, 3] of one size, as rows of up to six frames under their names.

    At most 1600 px wide: large frames are reduced, small ones enlarged by a whole factor.
    """
    frames, height, width = next(iter(rows.values())).shape[:3]
    picks = np.linspace(0, frames - 1, min(SHEET_COLUMNS, frames)).round().astype(int)
    widest = (SHEET_WIDTH - MARGIN) // SHEET_COLUMNS - MARGIN
    cell_height, cell_width = _shown_size(height, width, *CELL_HEIGHTS, widest)
    sheet_width = max(len(picks) * (cell_width + MARGIN) + MARGIN, NARROWEST_LABEL)
    font = ImageFont.load_default(FONT_SIZE)
    labels = [_wrapped(name, font, sheet_width - 2 * MARGIN) for name in rows]
    heights = [len(lines) * LINE_HEIGHT + cell_height + MARGIN for lines in labels]
    sheet = Image.new("RGB", (sheet_width, sum(heights) + MARGIN), "white")
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for lines, clip, row_height in zip(labels, rows.values(), heights):
        for number, line in enumerate(lines):
            draw.text((MARGIN, top + number * LINE_HEIGHT), line, fill="black", font=font)
        for column, pick in enumerate(picks):
            cell = _scaled(clip[pick].numpy(), (cell_height, cell_width))
            left = MARGIN + column * (cell_width + MARGIN)
            sheet.paste(Image.fromarray(cell), (left, top + len(lines) * LINE_HEIGHT))
        top += row_height
    return sheet


def mask_overlay(source: Tensor, mask: Tensor) -> Tensor:
    """The source, uint8 [F, H, W, 3], with the mask, bool [F, H, W], tinted red."""
    red = torch.tensor([127, 0, 0], dtype=torch.uint8)
    return torch.where(mask[..., None], source // 2 + red, source)


def _panel_size(height: int, width: int) -> tuple[int, int]:
    return _shown_size(height, width, MIN_HEIGHT, MOST_HEIGHT, MOST_WIDTH // 3)


def _shown_size(height: int, width: int, lowest: int, highest: int, widest: int) -> tuple[int, int]:
    """A picture's (height, width) when shown: small ones by a whole factor, large ones reduced."""
    if height <= highest and width <= widest:
        factor = max(1, min(-(-lowest // height), highest // height, widest // width))
        return height * factor, width * factor
    scale = min(highest / height, widest / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] at another size: whole pixels repeated, or areas averaged."""
    if picture.shape[:2] == size:
        return picture
    enlarged = size[0] > picture.shape[0]
    how = cv2.INTER_NEAREST if enlarged else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(picture), size[::-1], interpolation=how)


def _picture(panel: Tensor) -> np.ndarray:
    """A frame uint8 [H, W, 3], or a mask bool [H, W] in white on black, as a picture."""
    if panel.ndim == 2:
        panel = (panel.byte() * 255)[..., None].expand(-1, -1, 3)
    return panel.numpy()


def _wrapped(name: str, font, width: int) -> list[str]:
    """A name in at most three lines of so many pixels; what is longer ends in an ellipsis."""
    lines, words = [""], " ".join(name.split())
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1] + " …"]
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
