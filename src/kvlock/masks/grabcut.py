"""What a box, points or a rough mask mean in one frame, by GrabCut (Rother et al., 2004)."""

from collections.abc import Sequence

import cv2
import numpy as np

WORKING_SIDE = 320  # px of the shorter side, at most; more is slower and hardly better
ITERATIONS = 5
REFINING = 2  # iterations where the mask is nearly right already
FEWEST = 10  # pixels of a colour model
LIKENESS = 25.0  # in 8-bit Lab, at most: farther from a point's colour is another thing
SEED_SHARE = 0.01  # of the shorter side: the radius of a point
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


def cut(
    frame: np.ndarray,
    box: Box | None = None,
    points: Sequence[Point] = (),
    not_points: Sequence[Point] = (),
) -> np.ndarray:
    """The thing in a box, or that points lie on and others do not, or both.

    bool [H, W] of a frame uint8 [H, W, 3]. Without points it is what stands out in the box, or
    where nothing does, the box; with points, what holds none of them is left out.
    Raises ValueError for neither box nor point, and for what is outside the frame.
    """
    if box is None and not points:
        raise ValueError("there is no point on the thing; give --point x,y@frame, too")
    for point in (*points, *not_points):
        check_point(frame, point)
    radius = max(1, round(SEED_SHARE * min(frame.shape[:2])))
    seeds = _discs(frame, points, radius)
    inside = np.ones(frame.shape[:2], bool) if box is None else _boxed(frame, box)
    guess = np.where(inside, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    guess[(_like_seeds(frame, seeds) if points else inside) & inside] = cv2.GC_PR_FGD
    guess[seeds] = cv2.GC_FGD
    guess[_discs(frame, not_points, radius)] = cv2.GC_BGD
    near = (slice(None), slice(None)) if box is None else _around(frame, box)
    mask = np.zeros(frame.shape[:2], bool)
    mask[near] = _cut_reduced(frame[near], guess[near])
    if points:
        return _parts_with(mask | seeds, points)
    return mask if mask.any() else inside


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


def _boxed(frame: np.ndarray, box: Box) -> np.ndarray:
    """bool [H, W], True in the box. Raises ValueError for one that is empty or not inside."""
    x, y, w, h = box
    height, width = frame.shape[:2]
    if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):
        shown = ",".join(map(str, box))
        raise ValueError(
            f"box {shown} is empty or not inside the clip of {width}x{height}; "
            "expected x,y,width,height in pixels"
        )
    inside = np.zeros((height, width), bool)
    inside[y : y + h, x : x + w] = True
    return inside


def _around(frame: np.ndarray, box: Box) -> tuple[slice, slice]:
    """The box and half its size on every side."""
    x, y, width, height = box
    down, across = int(MARGIN * height) + 1, int(MARGIN * width) + 1
    rows = slice(max(0, y - down), min(frame.shape[0], y + height + down))
    return rows, slice(max(0, x - across), min(frame.shape[1], x + width + across))


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
