"""COCO's run lengths against what pycocotools writes, and a slow decoder."""

import json

import numpy as np
import pytest

from kvlock.media.rle import decode_rle, frames_of
from support.masks import FRAMES, HEIGHT, MOVING, WIDTH, read, refused

SQUARE = "62304"
DISC = "hn0=]14L4M2M4M2N2O0O2N2O0O2O0O2O000000000000000000000001N101N101N2N101N2N3L3N3L4LV^1"


def runs(mask: np.ndarray) -> list[int]:
    """A mask's run lengths, background first, by columns."""
    flat, counts, value = mask.T.ravel(), [0], False
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def packed(counts: list[int]) -> str:
    """As rleToString of cocoapi's maskApi.c writes them."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def record(mask: np.ndarray, as_text: bool = True) -> dict:
    return {"size": list(mask.shape), "counts": packed(runs(mask)) if as_text else runs(mask)}


def test_strings_written_by_pycocotools():
    y, x = np.mgrid[:60, :80]
    square, disc = np.zeros((5, 4), bool), (y - 30) ** 2 + (x - 35) ** 2 < 400
    square[1:3, 1:3] = True
    for mask, text in ((square, SQUARE), (disc, DISC)):  # pycocotools 2.0.11's encode
        assert packed(runs(mask)) == text
        assert np.array_equal(decode_rle({"size": list(mask.shape), "counts": text}), mask)


@pytest.mark.parametrize("as_text", [True, False])
def test_what_is_encoded_comes_back(as_text):
    mask = np.random.default_rng(0).random((37, 91)) > 0.3
    mask[:, 40:] = True  # a long run, of several characters
    assert np.array_equal(decode_rle(record(mask, as_text)), mask)


def test_a_list_of_frames_and_lines(tmp_path):
    frames = [record(m) for m in MOVING]
    (tmp_path / "a.json").write_text(json.dumps([frames[0], None, frames[2]]))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(f) for f in frames))
    expected = MOVING.copy()
    expected[1] = False
    assert np.array_equal(read(tmp_path / "a.json"), expected)
    assert np.array_equal(read(tmp_path / "b.jsonl"), MOVING)


def test_annotations_by_image_and_by_video(tmp_path):
    other = MOVING[:, ::-1]
    coco = {
        "images": [{"id": 10 + t} for t in range(FRAMES)],
        "annotations": [
            {"id": 100 * n + t, "track_id": n, "image_id": 10 + t, "segmentation": record(m)}
            for n, masks in ((1, MOVING), (2, other))
            for t, m in enumerate(masks)
        ],
    }
    vis = {
        "annotations": [
            {"id": n, "segmentations": [record(m) for m in masks]}
            for n, masks in ((1, MOVING), (2, other))
        ]
    }
    for name, content in (("coco", coco), ("vis", vis)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        assert np.array_equal(read(path), MOVING | other)
        assert np.array_equal(read(path, objects=(2,)), other)
        refused(path, "no annotation has an id of 7", objects=(7,))


def test_a_frame_without_annotation_is_empty():
    found = frames_of(
        {
            "images": [{"id": 1}, {"id": 2}],
            "annotations": [{"id": 5, "image_id": 2, "segmentation": record(MOVING[0])}],
        }
    )
    assert not found[0].any() and np.array_equal(found[1], MOVING[0])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"annotations": 1}',
        '[{"size": [48, 64], "counts": [5]}]',
        '[{"size": [48, 64], "counts": "zz"}]',
    ],
)
def test_what_is_none_is_refused(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    refused(path, "cannot be read as COCO run lengths")


def test_sizes_are_checked_before_anything_is_made():
    with pytest.raises(ValueError, match="add up to"):
        decode_rle({"size": [HEIGHT * 10**6, WIDTH * 10**6], "counts": [1, 2]})
