"""What a box, points and a rough mask mean in one frame."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from kvlock.masks.grabcut import cut, refined, resized
from support.scenes import iou, scene

SEEDS = range(10000, 10004)


def frame_of(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    video, truth = scene(seed, 1, side)
    return video[0].numpy(), truth[0].numpy()


def box_of(mask: np.ndarray, around: int = 3) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    top, left = max(0, ys.min() - around), max(0, xs.min() - around)
    bottom, right = min(mask.shape[0], ys.max() + around), min(mask.shape[1], xs.max() + around)
    return int(left), int(top), int(right - left), int(bottom - top)


def deepest(mask: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)
    return int(x), int(y)


def test_a_box_or_a_point_finds_the_shape():
    found = []
    for frame, truth in map(frame_of, SEEDS):
        ways = (
            cut(frame, box_of(truth)),
            cut(frame, points=[deepest(truth)]),
            cut(frame, box_of(truth), [deepest(truth)]),
        )
        found.append([iou(mask, truth) for mask in ways])
    assert np.min(found) > 0.65 and (np.mean(found, axis=0) > 0.8).all()


def test_the_same_on_every_run_and_whatever_was_drawn_before():
    frame, truth = frame_of(10000)
    first = cut(frame, box_of(truth))
    cut(frame_of(10003)[0], points=[(48, 48)])
    assert np.array_equal(cut(frame, box_of(truth)), first)


def test_nothing_outside_the_box_and_no_part_without_a_point():
    frame = np.full((64, 96, 3), 40, np.uint8)
    frame[20:40, 10:30] = frame[20:40, 60:80] = (200, 60, 60)  # two alike
    left, both = cut(frame, points=[(20, 30)]), cut(frame, points=[(20, 30), (70, 30)])
    assert left[20:40, 10:30].all() and not left[:, 50:].any()
    assert both[20:40, 60:80].all()
    boxed = cut(frame, (5, 15, 12, 30))
    assert boxed.any() and not boxed[:, 17:].any()


def test_a_point_beside_the_thing_takes_its_surroundings_away():
    frame = np.full((64, 96, 3), 40, np.uint8)
    frame[20:40, 10:30], frame[20:40, 30:50] = (
        (200, 60, 60),
        (190, 70, 66),
    )  # nearly alike, touching
    assert cut(frame, points=[(15, 30)])[30, 45]
    assert not cut(frame, points=[(15, 30)], not_points=[(45, 30)])[30, 45]


def test_a_box_in_which_nothing_stands_out_is_the_mask():
    frame = np.full((40, 40, 3), 90, np.uint8)
    mask = cut(frame, (10, 12, 8, 6))
    assert mask.sum() == 48 and mask[12:18, 10:18].all()


def test_a_large_frame_is_cut_at_its_own_size():
    frame, truth = frame_of(10001, 700)
    found = cut(frame, box_of(truth, 12))
    assert found.shape == truth.shape and iou(found, truth) > 0.9


def test_a_refined_mask_moves_by_no_more_than_the_band():
    frame, truth = frame_of(10002)
    rough = np.roll(truth, 2, axis=1)
    better = refined(frame, rough, 3)
    assert iou(better, truth) > iou(rough, truth)
    assert distance_transform_edt(~rough)[better].max() <= 3
    assert not refined(frame, np.zeros_like(rough), 3).any()
    assert refined(frame, np.ones_like(rough), 3).all()


@pytest.mark.parametrize(
    "asked, why",
    [
        (dict(box=(0, 0, 0, 5)), "box 0,0,0,5 is empty or not inside the clip of 96x96"),
        (dict(box=(90, 0, 20, 5)), "not inside"),
        (dict(points=[(96, 0)]), "point 96,0 is outside the clip of 96x96"),
        (dict(points=[(1, 1)], not_points=[(0, -1)]), "point 0,-1 is outside"),
        (dict(not_points=[(1, 1)]), "no point on the thing"),
    ],
)
def test_what_is_outside_is_refused(asked, why):
    with pytest.raises(ValueError, match=why):
        cut(frame_of(10000)[0], **asked)


def test_masks_are_resized_as_masks():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert resized(mask, (4, 4)).dtype == bool
    assert np.array_equal(resized(resized(mask, (16, 16)), (8, 8)), mask)
