"""Every method by name, whole edits on tiny backbones."""

import pytest
import torch

from kvlock.core.config import KVLockConfig
from kvlock.methods.catalogue import CALIBRATED, METHODS, check_model, method_config
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import with_options
from support.edits import EXECUTIONS, STEPS, latents_of, make_request, wide_request


def _short(method):
    """The method in a few steps, with a threshold that means something at toy size."""
    options = dict(num_inference_steps=STEPS, threshold=0.02)
    options |= dict(usual=((0.0, 1.0),)) if method in CALIBRATED else {}
    return with_options(METHODS[method], options)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_edits_two_clips_as_it_edits_each(backbone, method):
    requests, settings = [make_request(0), make_request(1)], _short(method)
    steps = []
    together = edit_clips(backbone, requests, settings, on_step=steps.append)
    alone = edit_clips(backbone, requests[1:], settings)[0]
    assert len(together[1].trace) == len(steps) == STEPS - settings.first_step
    difference = (together[1].video.int() - alone.video.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("method", [m for m, c in METHODS.items() if isinstance(c, KVLockConfig)])
def test_every_method_is_the_same_in_a_batch_and_branch_by_branch(backbone, method):
    settings, request = _short(method), wide_request()
    batched, sequential = (latents_of(backbone, [request], settings, e) for e in EXECUTIONS)
    torch.testing.assert_close(batched, sequential, atol=2e-4, rtol=1e-4)


def test_the_vace_row_is_plain_sampling():
    assert method_config("vace", {}, {}) == method_config("plain", {}, {})
    check_model("vace", takes_control=True)
    check_model("plain", takes_control=False)
    with pytest.raises(ValueError, match="use it with a VACE model, or 'plain' with this one"):
        check_model("vace", takes_control=False)
