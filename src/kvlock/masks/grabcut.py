"""What a box, points or a rough mask mean in one frame, by GrabCut (Rother et al., 2004)."""

from collections.abc import Sequence

import cv2
import numpy as np

WORKING_SIDE = 320  # px of the shorter side, at most; more is slower and hardly better
ITERATIONS = 5
REFINING = 2  # iterations where the mask is nearly right already
FEWEST = 10  # pixels of a colour model
LIKENESS = 25.0  # in 8-bit Lab, at most: farther from a point's colour is another thing
MARGIN = 0.5  # of a box's size, around it: what the background's colours are taken from

Box = tuple[int, int, int, int]  # x, y, width, height
Point = tuple[int, int]  # x, y


def scale_for(height: int, width: int) -> float:
    """How much a frame is reduced before it is worked on; 1 for small ones."""
    return min(1.0, WORKING_SIDE / min(height, width))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames uint8 [H, W, 3] or masks bool [H, W] at another (height, width)."""
    if picture.shape[:2] == size:
        return picture
    if picture.dtype == bool:
        return resized(picture.astype(np.float32), size) > 0.5
    smaller = size[0] < picture.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), size[::-1], interpolation=how)


def cut_box(frame: np.ndarray, box: Box) -> np.ndarray:
    """The thing in a box: bool [H, W] of a frame uint8 [H, W, 3]; where none stands out, the box.

    Raises ValueError for a box that is empty or reaches out of the frame.
    """
    check_box(frame, box)
    x, y, width, height = box
    around = (int(MARGIN * height) + 1, int(MARGIN * width) + 1)
    rows = slice(max(0, y - around[0]), y + height + around[0])
    columns = slice(max(0, x - around[1]), x + width + around[1])
    guess = np.full(frame.shape[:2], cv2.GC_BGD, np.uint8)
    guess[y : y + height, x : x + width] = cv2.GC_PR_FGD
    mask = np.zeros(frame.shape[:2], bool)
    mask[rows, columns] = _cut_reduced(frame[rows, columns], guess[rows, columns])
    if not mask.any():
        mask[y : y + height, x : x + width] = True
    return mask


def cut_points(
    frame: np.ndarray, points: Sequence[Point], not_points: Sequence[Point], box: Box | None = None
) -> np.ndarray:
    """The thing that `points` lie on and `not_points` do not: bool [H, W] of uint8 [H, W, 3].

    A box bounds it. What holds none of the points is left out.
    Raises ValueError for no point, and for one outside the frame.
    """
    if not points:
        raise ValueError("there is no point on the thing; give --point x,y@frame, too")
    for point in (*points, *not_points):
        check_point(frame, point)
    guess = np.full(frame.shape[:2], cv2.GC_PR_BGD, np.uint8)
    radius = max(1, round(0.01 * min(frame.shape[:2])))
    seeds = _discs(frame, points, radius)
    guess[_like_seeds(frame, seeds)] = cv2.GC_PR_FGD
    if box is not None:
        check_box(frame, box)
        x, y, width, height = box
        inside = np.zeros(frame.shape[:2], bool)
        inside[y : y + height, x : x + width] = True
        guess[~inside] = cv2.GC_BGD
    guess[seeds] = cv2.GC_FGD
    guess[_discs(frame, not_points, radius)] = cv2.GC_BGD
    return _parts_with(_cut_reduced(frame, guess) | seeds, points)


def refined(frame: np.ndarray, mask: np.ndarray, band: int) -> np.ndarray:
    """A nearly right mask, bool [H, W], moved by at most `band` pixels onto the edges that are seen.

    At most half of a thin thing's width is open to question. Unchanged where either side is empty.
    """
    if not mask.any():
        return mask
    inner = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outer = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    guess = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    guess[inner > min(band, inner.max() / 2)] = cv2.GC_FGD
    guess[outer > band] = cv2.GC_BGD
    near = surroundings(mask, 3 * band + 8)
    result = mask.copy()
    result[near] = _cut(frame[near], guess[near], REFINING)
    return result


def surroundings(mask: np.ndarray, pixels: int) -> tuple[slice, slice]:
    """The rectangle around all that a mask marks, and so many pixels more; it marks something."""
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(max(0, s[0] - pixels), s[-1] + pixels + 1) for s in spans)
    return rows, columns


def check_box(frame: np.ndarray, box: Box) -> None:
    """Raise ValueError for a box that is empty or not inside the frame [H, W, 3]."""
    x, y, w, h = box
    height, width = frame.shape[:2]
    if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):
        shown = ",".join(map(str, box))
        raise ValueError(
            f"box {shown} is empty or not inside the clip of {width}x{height}; "
            "expected x,y,width,height in pixels"
        )


def check_point(frame: np.ndarray, point: Point) -> None:
    """Raise ValueError for a point outside the frame [H, W, 3]."""
    height, width = frame.shape[:2]
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise ValueError(
            f"point {point[0]},{point[1]} is outside the clip of {width}x{height}; "
            "expected x,y in pixels from the upper left"
        )


def _cut_reduced(frame: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """`_cut` at the working size; what is certain stays certain at the full size."""
    height, width = frame.shape[:2]
    scale = scale_for(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(guess, size[::-1], interpolation=cv2.INTER_NEAREST)
    cut = resized(_cut(resized(frame, size), small, ITERATIONS), (height, width))
    return (cut | (guess == cv2.GC_FGD)) & (guess != cv2.GC_BGD)


def _cut(frame: np.ndarray, guess: np.ndarray, iterations: int) -> np.ndarray:
    """GrabCut from a guess in OpenCV's four values; the guess itself where it has too few pixels."""
    guess = np.ascontiguousarray(guess)
    mask = (guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)
    if min(mask.sum(), (~mask).sum()) < FEWEST:
        return mask
    models = np.zeros((2, 1, 65))
    cv2.setRNGSeed(0)  # OpenCV's own, for the colour models' first clusters: runs are alike
    picture = np.ascontiguousarray(frame)
    cv2.grabCut(picture, guess, None, *models, iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return (guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)


def _discs(frame: np.ndarray, points: Sequence[Point], radius: int) -> np.ndarray:
    drawn = np.zeros(frame.shape[:2], np.uint8)
    for point in points:
        cv2.circle(drawn, point, radius, 1, -1)
    return drawn > 0


def _like_seeds(frame: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Pixels of a seed's colour that hang together with it; how near counts is Otsu's threshold."""
    lab = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.float32)
    count, labels = cv2.connectedComponents(seeds.astype(np.uint8))
    found = seeds.copy()
    for label in range(1, count):
        away = np.linalg.norm(lab - lab[labels == label].mean(axis=0), axis=-1)
        away = np.rint(away.clip(0, 255)).astype(np.uint8)
        limit, _ = cv2.threshold(away, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        found |= away <= min(limit, LIKENESS)
    _, parts = cv2.connectedComponents(found.astype(np.uint8))
    return found & np.isin(parts, np.unique(parts[seeds]))


def _parts_with(mask: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """The parts of a mask that hold a point."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return mask & np.isin(parts, [parts[y, x] for x, y in points])
