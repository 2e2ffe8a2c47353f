"""The metrics of one edited clip."""

from kvlock.bench.scores import BY_NETWORKS, METRICS, Reference, score
from kvlock.shapes.scenes import scene_clips, scene_request


def test_scores_of_the_truth_and_of_the_source():
    request, clips = scene_request(1), scene_clips(1)  # seed 1 reshapes
    known = Reference(request.video, request.mask, clips["truth"], 1)
    truth, source = score(clips["truth"], known), score(clips["source"], known)
    assert set(truth) == {m.name for m in METRICS} - {m.name for m in BY_NETWORKS} - {
        "hallucinated"
    }
    assert truth["psnr_background"] == truth["psnr_inside"] == truth["psnr_ring"] == 100
    assert truth["flicker_background"] == truth["mode_distance"] == 0
    assert (
        truth["right_edit"]
        == truth["right_shape"]
        == truth["right_colour"]
        == truth["mode_consistency"]
        == 1
    )
    assert source["right_edit"] == source["right_shape"] == 0 and source["right_colour"] == 1
    assert source["psnr_frame"] == 100 and source["psnr_inside"] < 30
    assert set(score(request.video, Reference(request.video, request.mask))) < set(truth)
